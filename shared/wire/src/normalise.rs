//! Making values of the same meaning the same (DESIGN: trim, lower-case types, ISO 3166 countries, device types).

use std::borrow::Cow;
use std::str::FromStr;

/// Without white space around it.
#[inline]
pub(crate) fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    // Nearly always there is nothing to trim, and two bytes tell.
    if let (Some(first), Some(last)) = (text.as_bytes().first(), text.as_bytes().last())
        && first.is_ascii_graphic()
        && last.is_ascii_graphic()
    {
        return text;
    }
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// In lower case, without white space around it.
pub(crate) fn lower_case(text: Cow<'_, str>) -> Cow<'_, str> {
    let text = trimmed(text);
    let is_lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower {
        text
    } else {
        Cow::Owned(text.to_lowercase())
    }
}

/// The ISO 3166 alpha-2 code of a country given as alpha-2, alpha-3 or by name. Nothing for what is no country.
pub(crate) fn country(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let text = trimmed(text);
    if let [first @ b'A'..=b'Z', second @ b'A'..=b'Z'] = text.as_bytes()
        && celes::Country::from_alpha2(&text).is_ok()
    {
        debug_assert!(first.is_ascii() && second.is_ascii());
        return Some(text);
    }
    // The library reads names without spaces, in any case.
    let packed: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    let found = celes::Country::from_str(&packed.to_uppercase()).or_else(|_| celes::Country::from_str(&packed));
    found.ok().map(|country| Cow::Borrowed(country.alpha2))
}

/// The kind of device that a user agent tells of.
pub(crate) fn device_type(user_agent: &str) -> Option<&'static str> {
    match woothee::parser::Parser::new().parse(user_agent)?.category {
        "pc" => Some("desktop"),
        "smartphone" | "mobilephone" => Some("mobile"),
        "appliance" => Some("appliance"),
        "crawler" => Some("bot"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_same_meaning_become_the_same() {
        for (given, expected) in [
            ("GB", Some("GB")),
            (" gb ", Some("GB")),
            ("gbr", Some("GB")),
            ("Germany", Some("DE")),
            ("XX", None),
            ("", None),
            ("Atlantis", None),
        ] {
            assert_eq!(country(given.into()).as_deref(), expected, "{given}");
        }
        for (given, expected) in [("Page_View ", "page_view"), ("click", "click"), ("É", "é")] {
            assert_eq!(lower_case(given.into()), expected);
        }
        for (given, expected) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                Some("desktop"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1",
                Some("mobile"),
            ),
            (
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                Some("bot"),
            ),
            ("curl", None),
        ] {
            assert_eq!(device_type(given), expected, "{given}");
        }
    }
}
