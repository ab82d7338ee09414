//! A call of a script, put together.
//!
//! Arguments are written to where they are sent from. A string for each of them, made and dropped
//! in every call, would cost more than all else that the backend does for it.

use lockcore::{Claim, HolderId, LockKey};
use redis::{Cmd, RedisWrite};

use crate::keys::Names;
use crate::scripts::Script;

/// About as many bytes as most arguments have.
const ROOM: usize = 40;

pub(crate) struct Call(Cmd);

impl Call {
    /// A call of a script, to which its keys and then its arguments are added.
    pub(crate) fn new(script: &Script, keys: usize, args: usize) -> Self {
        let all = 3 + keys + args;
        let mut call = Self(Cmd::with_capacity(all, all * ROOM));
        call.text("EVALSHA").text(script.hash()).number(keys as u64);
        call
    }

    pub(crate) fn record(&mut self, names: &Names, key: &LockKey) -> &mut Self {
        self.text(&names.record(key))
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.0.write_arg(text.as_bytes());
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        let width = number.checked_ilog10().map_or(1, |most| most as usize + 1);
        let mut digits = [0; 20];
        self.0.write_arg(decimal(number, &mut digits[..width]));
        self
    }

    /// How a record of the holder begins.
    pub(crate) fn holder(&mut self, holder: HolderId) -> &mut Self {
        let mut text = *b"2|00000000000000000000000000000000";
        let mut left = holder.as_u128();
        for digit in text[2..].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(left % 16) as usize];
            left /= 16;
        }
        self.0.write_arg(&text);
        self
    }

    /// The least token of a claim, as records write it; empty where any will do.
    pub(crate) fn least_token(&mut self, claim: &Claim) -> &mut Self {
        let width = if claim.min_token == 0 { 0 } else { 16 };
        let mut digits = [0; 16];
        self.0.write_arg(decimal(claim.min_token, &mut digits[..width]));
        self
    }

    pub(crate) fn done(self) -> Cmd {
        self.0
    }
}

/// Writes a number with leading zeros.
fn decimal(mut number: u64, digits: &mut [u8]) -> &[u8] {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scripts::RENEW;

    #[test]
    fn arguments_are_written_as_they_are_printed() {
        let holder = HolderId::from_u128(0x0123_4567_89ab_cdef_0000_0000_0000_00f7);
        let key = LockKey::new("k").expect("valid");
        let mut claim = Claim::new(key.clone(), holder, Duration::from_secs(1));
        let mut call = Call::new(&RENEW, 1, 6);
        call.record(&Names::default(), &key).holder(holder).number(0).number(u64::MAX).number(1000);
        call.least_token(&claim);
        claim = claim.with_min_token(1_795_883_224_114_380);
        call.least_token(&claim);
        claim = claim.with_min_token(7);
        call.least_token(&claim);
        let call = call.done();
        let args = call.args_iter().map(|arg| match arg {
            redis::Arg::Simple(arg) => String::from_utf8(arg.to_vec()).expect("text"),
            redis::Arg::Cursor => panic!("no cursor"),
            _ => panic!("another argument"),
        });
        let expected = [
            "EVALSHA",
            RENEW.hash(),
            "1",
            "leaselock:{k}",
            &format!("2|{holder}"),
            "0",
            &u64::MAX.to_string(),
            "1000",
            "",
            "1795883224114380",
            "0000000000000007",
        ];
        assert_eq!(args.collect::<Vec<_>>(), expected);
    }
}
