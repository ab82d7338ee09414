#![doc = include_str!("../README.md")]

mod client;
mod server;

pub use client::LineBackend;
pub use server::LineServer;

/// What a server says first: whoever hears it has reached one.
const GREETING: &str = "lines 1\n";

/// A field of a line, without the bytes that separate fields and lines.
fn escaped(plain: &str) -> String {
    plain.replace('%', "%25").replace('\t', "%09").replace('\n', "%0A")
}

fn unescaped(text: &str) -> String {
    text.replace("%0A", "\n").replace("%09", "\t").replace("%25", "%")
}
