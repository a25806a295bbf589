//! What a user agent tells: the platform and the browser. It is read only when a feature or condition asks.

use woothee::parser::Parser;

/// What the library says where it can't tell.
const UNKNOWN: &str = "UNKNOWN";

/// The operating system, such as `Windows 10`, `iPhone` or `Android`.
pub fn platform(user_agent: &str) -> Option<&str> {
    known(Parser::new().parse(user_agent)?.os)
}

/// The browser or app, such as `Chrome` or `Safari`.
pub fn browser(user_agent: &str) -> Option<&str> {
    known(Parser::new().parse(user_agent)?.name)
}

fn known(name: &str) -> Option<&str> {
    (name != UNKNOWN && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_and_browser_are_told_where_they_can_be() {
        for (agent, expected) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                (Some("Windows 10"), Some("Chrome")),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1",
                (Some("iPhone"), Some("Safari")),
            ),
            ("our-app/2", (None, None)),
            ("", (None, None)),
        ] {
            assert_eq!((platform(agent), browser(agent)), expected, "{agent}");
        }
    }
}
