//! Numbers, times and errors as people read them, and the way they go to standard output.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes to standard output. Whoever listened there may have gone (`usher ... | head -1`): that is an end, not an error.
///
/// # Errors
/// When it can't be written for another reason.
pub fn say(text: &str) -> Result<()> {
    write_to(&mut std::io::stdout().lock(), text)
}

fn write_to(out: &mut impl Write, text: &str) -> Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// A number with its thousands apart: `62,753`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts: `1 step`, `2 steps`.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count as u64))
}

/// An error with everything that led to it: what, then why. A cause that only repeats the one before is left out.
pub fn error_chain(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut before = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !before.contains(&cause) {
            text.push_str(&format!("\n  because: {cause}"));
        }
        before = cause;
    }
    text
}

/// Rows under a heading, their first column aligned: what `usher` prints for counts by name.
pub fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("  {name:<width$}  {value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (62_753, "62,753"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(
            (counted(1, "step"), counted(2_000, "step")),
            ("1 step".to_owned(), "2,000 steps".to_owned())
        );
    }

    #[test]
    fn a_closed_pipe_is_the_end_and_a_full_disk_is_an_error() {
        struct Failing(ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(write_to(&mut Failing(ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write_to(&mut Failing(ErrorKind::StorageFull), "x").is_err());
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = anyhow::anyhow!("no such file")
            .context("open: no such file")
            .context("cannot read x");
        assert_eq!(
            error_chain(&error),
            "error: cannot read x\n  because: open: no such file"
        );
    }
}
