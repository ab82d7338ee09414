//! What examples with flags share in reading them.

use std::ops::RangeInclusive;

use lexopt::{Error, Parser};

/// The value of a flag.
pub(crate) fn text(parser: &mut Parser) -> Result<String, String> {
    parser.value().map_err(said)?.into_string().map_err(|_| "arguments are UTF-8".to_owned())
}

/// The value of a flag that takes a number.
pub(crate) fn number(
    parser: &mut Parser,
    flag: &str,
    range: RangeInclusive<usize>,
) -> Result<usize, String> {
    match text(parser)?.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{flag} takes a number from {} to {}", range.start(), range.end())),
    }
}

/// What is wrong. A wrong argument may be a URL with a password: none is repeated as it is.
pub(crate) fn said(error: Error) -> String {
    match error {
        Error::MissingValue { option: Some(flag) } => format!("{flag} needs a value"),
        Error::UnexpectedValue { option: flag, .. } => format!("{flag} takes no value"),
        Error::UnexpectedOption(flag) => format!("there is no flag `{flag}`"),
        Error::NonUnicodeValue(_) => "arguments are UTF-8".to_owned(),
        _ => "arguments other than flags are not taken".to_owned(),
    }
}

/// Whether a URL names a store within one process.
pub(crate) fn is_memory(url: &str) -> bool {
    url.split(':').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("memory"))
}
