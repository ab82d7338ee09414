//! The records' values, version 1.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::KeyValue;
use lockcore::{HolderId, Incarnation, Lease};

use crate::keys;

const VERSION: &str = "1";

/// The value of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) holder: HolderId,
    /// The ttl of the etcd lease it is attached to.
    pub(crate) seconds: u32,
    /// The base that its token was counted from.
    pub(crate) base: u64,
    /// The floor that its token was raised to; 0 if it was not.
    pub(crate) floor: u64,
    pub(crate) label: Arc<str>,
}

impl Record {
    pub(crate) fn write(&self) -> String {
        let Self { holder, seconds, base, floor, label } = self;
        format!("{VERSION}|{holder}|{seconds}|{base}|{floor}|{label}")
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut parts = value.splitn(6, |&byte| byte == b'|');
        let mut text = || std::str::from_utf8(parts.next()?).ok();
        if text()? != VERSION {
            return None;
        }
        let holder = text()?.parse().ok()?;
        let seconds = number(text()?)?.try_into().ok()?;
        let (base, floor) = (number(text()?)?, number(text()?)?);
        // A label is text when we write it; whoever else wrote it, the lease still stands.
        let label = String::from_utf8_lossy(parts.next()?).into();
        Some(Self { holder, seconds, base, floor, label })
    }
}

/// A lease as it stands in the store.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) record: Record,
    pub(crate) token: u64,
    pub(crate) lease: i64,
    pub(crate) created: u64,
    pub(crate) modified: i64,
}

impl Held {
    /// `None`: the value is not one of ours.
    pub(crate) fn read(found: &KeyValue) -> Option<Self> {
        let record = Record::read(found.value())?;
        let created = u64::try_from(found.create_revision()).ok()?;
        let token = created.checked_add(record.base)?.max(record.floor);
        // Without a lease it would never end, and we write none such.
        let lease = Some(found.lease()).filter(|&lease| lease != 0)?;
        Some(Self { record, token, lease, created, modified: found.mod_revision() })
    }

    /// As it is told to its holder.
    pub(crate) fn granted(&self, incarnation: Option<Incarnation>) -> Lease {
        Lease::new(self.token, ttl(self.record.seconds)).with_incarnation(incarnation)
    }
}

/// The value of the memory record: which store this is, in which life of its data, and what its
/// tokens are counted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) cluster: u64,
    pub(crate) id: u128,
    pub(crate) base: u64,
}

impl Life {
    pub(crate) fn write(&self) -> String {
        let Self { cluster, id, base } = self;
        format!("{VERSION}|{cluster:016x}|{id:032x}|{base}")
    }

    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.split('|');
        if parts.next()? != VERSION {
            return None;
        }
        let cluster = parts.next().filter(|text| text.len() == 16)?;
        let cluster = u64::from_str_radix(cluster, 16).ok()?;
        let id: HolderId = parts.next()?.parse().ok()?;
        let base = number(parts.next()?)?;
        let life = Self { cluster, id: id.as_u128(), base };
        // Compared as a whole in transactions, so no other spelling will do.
        (life.write().as_bytes() == value).then_some(life)
    }

    pub(crate) fn young_id(&self) -> i64 {
        keys::young_id(self.id)
    }
}

/// Whole seconds, rounded up: a lease never ends before what was claimed.
pub(crate) fn seconds(ttl: Duration) -> u32 {
    let seconds = ttl.as_nanos().div_ceil(1_000_000_000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

pub(crate) fn ttl(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// A decimal number in its only spelling.
pub(crate) fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_with_any_label() {
        for label in ["", "web-1:4711", "a|b|", "é\n"] {
            let record = Record {
                holder: HolderId::from_u128(7),
                seconds: 30,
                base: 1_795_344_351_000_000,
                floor: 0,
                label: label.into(),
            };
            assert_eq!(Record::read(record.write().as_bytes()), Some(record));
        }
    }

    #[test]
    fn what_we_do_not_write_is_not_read() {
        let holder = "0".repeat(32);
        for wrong in [
            String::new(),
            "1".to_owned(),
            format!("2|{holder}|30|1|0|"),
            format!("1|{holder}|30|1|0"),
            format!("1|{holder}|30|1|+0|"),
            format!("1|{holder}|030|1|0|"),
            format!("1|{holder}|-1|1|0|"),
            format!("1|{holder}|4294967296|1|0|"),
            format!("1|{holder}x|30|1|0|"),
        ] {
            assert_eq!(Record::read(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn fractions_of_a_second_are_rounded_up() {
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::from_nanos(2_000_000_001)), 3);
        assert_eq!(seconds(Duration::from_secs(24 * 60 * 60)), 86_400);
    }

    #[test]
    fn a_life_reads_back_in_one_spelling() {
        let life = Life { cluster: 0xcdf8_181e_3bcf_f2d2, id: 9, base: 7 };
        assert_eq!(Life::read(life.write().as_bytes()), Some(life.clone()));
        let text = life.write();
        for wrong in
            [text.to_uppercase(), format!("{text}|"), format!("{text}0|"), text.replace("1|", "2|")]
        {
            assert_eq!(Life::read(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
