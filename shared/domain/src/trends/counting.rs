//! Which events count for trends, and in which minute.

use std::collections::BTreeSet;

use super::{minute_of, oldest_minute};
use crate::event::Event;
use crate::journey::{Journey, TrendBy};
use crate::limits::{TREND_KEPT_MS_MIN, TREND_WITHIN_MS_MAX};
use crate::time::Timestamp;

/// The event types that are counted whatever the journey says.
pub const COUNTED_ALWAYS: [&str; 3] = ["click", "like", "view"];

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// It counts in this minute, by its own time (P11).
    In(i64),
    /// Its minute has left every window.
    TooLate,
    /// No trend is about such an event: another type, or neither a content nor a category.
    Not,
}

/// What a journey counts over all users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedEvents {
    event_types: BTreeSet<String>,
    kept_ms: i64,
}

impl CountedEvents {
    /// [`COUNTED_ALWAYS`] and what the journey's trends name, without what it ignores, for as long as its longest window.
    pub fn of(journey: &Journey) -> CountedEvents {
        let named = journey.trends.iter().flat_map(|trend| &trend.event_types);
        let longest = journey.trends.iter().map(|trend| trend.within_ms).max();
        CountedEvents {
            event_types: COUNTED_ALWAYS
                .into_iter()
                .chain(named.map(String::as_str))
                .filter(|event_type| !journey.dispatch(event_type).ignored)
                .map(str::to_owned)
                .collect(),
            kept_ms: longest.unwrap_or(0).clamp(TREND_KEPT_MS_MIN, TREND_WITHIN_MS_MAX),
        }
    }

    /// How long a minute is of use after it ended, in milliseconds.
    pub fn kept_ms(&self) -> i64 {
        self.kept_ms
    }

    /// Where an event counts as of a moment: its arrival, or that of the last record that came with it.
    pub fn place(&self, event: &Event<'_>, as_of: Timestamp) -> Counting {
        let has_key = event.content_id.is_some() || event.category.is_some();
        if !has_key || !self.event_types.contains(event.event_type.as_ref()) {
            return Counting::Not;
        }
        let minute = minute_of(event.at);
        if minute < oldest_minute(self.kept_ms, as_of) {
            Counting::TooLate
        } else {
            Counting::In(minute)
        }
    }
}

/// What an event is counted by: its content, its category, or both.
pub fn keys_of<'e>(event: &'e Event<'_>) -> impl Iterator<Item = (TrendBy, &'e str)> {
    let content = event.content_id.as_deref().map(|id| (TrendBy::Content, id));
    let category = event.category.as_deref().map(|id| (TrendBy::Category, id));
    content.into_iter().chain(category)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::Trend;
    use crate::testing::{MINUTE_MS, event, journey, time};

    fn counted(trends: &[(&[&str], i64)]) -> CountedEvents {
        let mut journey = journey("journey: t\nignore: [view]");
        journey.trends = trends
            .iter()
            .map(|(event_types, minutes)| Trend {
                name: "t".to_owned(),
                event_types: event_types.iter().map(|name| (*name).to_owned()).collect(),
                by: TrendBy::Content,
                within_ms: minutes * MINUTE_MS,
            })
            .collect();
        CountedEvents::of(&journey)
    }

    #[test]
    fn p11_an_event_counts_in_the_minute_of_its_own_time_until_that_has_left_every_window() {
        let hours = |hours: i64| hours * 60 * MINUTE_MS;
        let counted = counted(&[(&["purchase"], 10), (&["share"], 60)]);
        assert_eq!(counted.kept_ms(), hours(1));
        let arrived = time(hours(24) + 30_000);
        for (event_type, content, category, before_arrival_ms, expected) in [
            ("click", true, false, 0, Some(0)),
            ("like", false, true, 0, Some(0)),
            ("purchase", true, true, 30_000, Some(0)),
            ("share", true, false, 30_001, Some(-1)),
            ("click", true, false, -hours(0) - 40_000, Some(1)), // its clock runs ahead, as far as that is believed
            ("click", true, false, hours(1), Some(-60)),
            ("click", true, false, hours(1) + 30_001, None),
            ("click", false, false, 0, Some(i64::MAX)),
            ("view", true, false, 0, Some(i64::MAX)), // ignored by the journey
            ("sign_up", true, true, 0, Some(i64::MAX)),
        ] {
            let mut event = event("e", event_type, arrived.minus_ms(before_arrival_ms));
            event.content_id = content.then(|| "tour".into());
            event.category = category.then(|| "video".into());
            let expected = match expected {
                None => Counting::TooLate,
                Some(i64::MAX) => Counting::Not,
                Some(minutes) => Counting::In(minute_of(arrived) + minutes),
            };
            assert_eq!(
                counted.place(&event, arrived),
                expected,
                "{event_type} {before_arrival_ms}"
            );
            let keys = keys_of(&event).count();
            assert_eq!(keys, usize::from(content) + usize::from(category));
        }
    }

    #[test]
    fn minutes_are_kept_for_an_hour_where_no_trend_asks_for_more() {
        assert_eq!(counted(&[]).kept_ms(), TREND_KEPT_MS_MIN);
        assert_eq!(counted(&[(&["click"], 10)]).kept_ms(), TREND_KEPT_MS_MIN);
    }
}
