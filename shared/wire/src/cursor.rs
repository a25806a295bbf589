//! A quick way through JSON of an expected shape.
//!
//! Most records have the shape that they should have. For those, this walks the text once, and finds the end of a
//! string by SIMD. It only ever says "yes, and here it is" or "I can't tell": on the latter the caller reads the same
//! text again with `serde_json`, which knows all of JSON and says what is wrong. So this may refuse what is right, but
//! must not take what is wrong.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// Bytes that are looked at eight at a time, which is quickest for short strings, before the search for a string's end
/// goes wider.
const SHORT_BYTES: usize = 32;
const WORD_BYTES: usize = 8;
/// A word with 1 in every byte.
const ONES: u64 = u64::MAX / 255;
/// A word with the highest bit of every byte set.
const HIGHS: u64 = ONES * 128;

/// Where the first quote, backslash or control character is, where the first two of these come before any control
/// character, which no string may have.
fn string_length(rest: &[u8]) -> Option<usize> {
    let (words, _) = rest.as_chunks::<WORD_BYTES>();
    for (index, word) in words.iter().take(SHORT_BYTES / WORD_BYTES).enumerate() {
        let word = u64::from_le_bytes(*word);
        // The highest bit of a byte is set where the byte is zero; a borrow only reaches bytes behind the first such.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
        let controls = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let found = (controls | quotes | backslashes) & HIGHS;
        if found != 0 {
            let length = index * WORD_BYTES + found.trailing_zeros() as usize / WORD_BYTES;
            return (rest[length] >= b' ').then_some(length);
        }
    }
    let before = SHORT_BYTES.min(words.len() * WORD_BYTES);
    let length = before + memchr::memchr2(b'"', b'\\', &rest[before..])?;
    // Written so that the compiler makes it wide: no early exit.
    let has_control = rest[before..length]
        .iter()
        .fold(false, |found, byte| found | (*byte < b' '));
    (!has_control).then_some(length)
}

/// A place in a JSON text.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    #[inline]
    fn skip_white_space(&mut self) {
        // Producers hardly ever write any.
        if self.text.as_bytes().get(self.at).is_some_and(|byte| *byte > b' ') {
            return;
        }
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
            .count();
    }

    /// The next byte that is no white space, without going past it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        self.skip_white_space();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past this byte, which must be the next.
    pub(crate) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Goes past this byte if it is the next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        self.expect(byte).is_some()
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// A string without escapes. Where the next is no such, the cursor stays where it is.
    pub(crate) fn plain_string(&mut self) -> Option<&'a str> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start..];
        let length = string_length(rest)?;
        if rest[length] != b'"' {
            return None;
        }
        self.at = start + length + 1;
        Some(&self.text[start..start + length])
    }

    /// A string, borrowed where it has no escapes.
    #[inline]
    pub(crate) fn string(&mut self) -> Option<Cow<'a, str>> {
        match self.plain_string() {
            Some(text) => Some(Cow::Borrowed(text)),
            None => self.escaped_string().map(Cow::Owned),
        }
    }

    #[cold]
    fn escaped_string(&mut self) -> Option<String> {
        if self.peek()? != b'"' {
            return None;
        }
        serde_json::from_str(self.raw()?).ok()
    }

    /// A string or null, to its place. (A result would go through memory several times on its way there.)
    #[inline]
    pub(crate) fn optional_string_into(&mut self, place: &mut Option<Cow<'a, str>>) -> Option<()> {
        match self.plain_string() {
            Some(text) => *place = Some(Cow::Borrowed(text)),
            None if self.null().is_some() => *place = None,
            None => *place = Some(Cow::Owned(self.escaped_string()?)),
        }
        Some(())
    }

    /// Null.
    pub(crate) fn null(&mut self) -> Option<()> {
        self.skip_white_space();
        self.text[self.at..]
            .starts_with("null")
            .then(|| self.at += "null".len())
    }

    /// The text of any value.
    pub(crate) fn raw(&mut self) -> Option<&'a str> {
        self.skip_white_space();
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<&'a RawValue>();
        let raw = values.next()?.ok()?.get();
        self.at += values.byte_offset();
        Some(raw)
    }

    /// A whole number of few digits and nothing else.
    pub(crate) fn small_whole(&mut self) -> Option<u64> {
        let digits = self.number()?;
        let plain = digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        if plain && !leading_zero {
            digits.parse().ok()
        } else {
            None
        }
    }

    /// The text of what may be a number.
    pub(crate) fn number(&mut self) -> Option<&'a str> {
        self.skip_white_space();
        let rest = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        let text = &self.text[self.at..self.at + length];
        self.at += length;
        (length > 0).then_some(text)
    }

    /// Reads an object: `member` is called at each value with the member's name, and must go past the value.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&mut Cursor<'a>, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let name = self.plain_string()?;
            self.expect(b':')?;
            member(self, name)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Reads an object that may be like one read before. `member` also says whether the member is one that objects
    /// repeat; `repeated` keeps those by their place, and where one comes again, `member` is not called.
    pub(crate) fn object_like(
        &mut self,
        repeated: &mut Vec<Option<&'a str>>,
        mut member: impl FnMut(&mut Cursor<'a>, &'a str) -> Option<bool>,
    ) -> Option<()> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return repeated.is_empty().then_some(());
        }
        for place in 0.. {
            match repeated.get(place) {
                // It ends in a quote, so what comes after it is another part.
                Some(Some(text)) if self.text.as_bytes()[self.at..].starts_with(text.as_bytes()) => {
                    self.at += text.len()
                }
                _ => {
                    self.skip_white_space();
                    let start = self.at;
                    let name = self.plain_string()?;
                    self.expect(b':')?;
                    let repeats = member(self, name)?;
                    if place == repeated.len() {
                        repeated.push(repeats.then(|| &self.text[start..self.at]));
                    } else if repeats || repeated.get(place)?.is_some() {
                        // The objects of this text differ in what should repeat.
                        return None;
                    }
                }
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                // All that should repeat must have been there.
                return (place + 1 >= repeated.len()).then_some(());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whatever the quick way takes, `serde_json` takes as the same string, and it takes every string that ends.
    fn check(text: &str) {
        let mut cursor = Cursor::new(text);
        let read = cursor.string();
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let expected = values.next().and_then(Result::ok);
        assert_eq!(read.as_deref(), expected.as_deref(), "{text:?}");
        if read.is_some() {
            assert_eq!(cursor.at, values.byte_offset(), "{text:?}");
        }
    }

    #[test]
    fn strings_of_every_length_end_where_they_end() {
        for length in 0..100 {
            let filler = "x".repeat(length);
            for end in [
                "\"",
                "\" ",
                "\",\"b\"",
                "\\\"\"",
                "\\u0041\"",
                "\\ud800\"",
                "\\x\"",
                "\n\"",
                "\u{1f}\"",
                "\u{80}\"",
                "é\"",
                "\u{7f}\"",
                "",
                "\\",
            ] {
                check(&format!("\"{filler}{end}"));
                check(&format!("\"{filler}{end}{filler}\""));
            }
        }
    }

    proptest! {
        #[test]
        fn any_string_is_read_as_serde_json_reads_it(text in "[\"a-c\\\\\u{0}-\u{30}\u{7e}-\u{82}é]{0,60}") {
            check(&format!("\"{text}"));
            check(&serde_json::to_string(&text).expect("text"));
        }
    }
}
