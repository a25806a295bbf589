//! Every limit of the core, by name. A collection in a profile without an entry here is a bug (P8).

/// Longest event id, in bytes, after trimming.
pub const EVENT_ID_BYTES_MAX: usize = 64;
/// Longest event type, in bytes, after trimming.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;
/// Longest user id, anonymous id, session id, content id, category or location part, in bytes. A Kinesis partition key
/// holds 256 characters, and the user id is one.
pub const IDENTIFIER_BYTES_MAX: usize = 256;
/// Deepest nesting of arrays and objects in an event. Deeper ones are rejected, so nothing downstream recurses further.
pub const JSON_DEPTH_MAX: usize = 32;
/// Largest event, in bytes, after decompression: the size of the largest Kinesis record (10 MiB).
pub const EVENT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// How far ahead of its arrival an event's timestamp may be before it is clamped to the arrival.
pub const CLOCK_AHEAD_MS_MAX: i64 = 5 * 60 * 1000;
/// How far ahead of its arrival a timestamp is believed to be a wrong clock. Beyond it the record is rejected: no clock
/// is a day off by accident, and a bad unit (microseconds, say) would otherwise be filed as now.
pub const CLOCK_AHEAD_REJECT_MS: i64 = 24 * 60 * 60 * 1000;

/// Event ids that a profile remembers, unless the journey says otherwise (P2).
pub const DEDUPE_LAST_DEFAULT: usize = 64;
/// The most event ids that a journey may ask a profile to remember: 32 KB of the item.
pub const DEDUPE_LAST_MAX: usize = 4096;
/// Shards whose position a profile keeps. A user's events come from one shard, or two around a reshard; producers with
/// another partition key may need more. The one least recently applied leaves first.
pub const GUARD_SHARDS_MAX: usize = 32;
/// Triggers that one stored profile may hold unsent (P5). When an event might fire more than there is room for, planning
/// stops, and goes on when the outbox was sent. Only an event that finds it empty may take it beyond this, to at most one
/// trigger for each of [`RULES_MAX`] rules, and as many offers that were put off to that moment.
pub const OUTBOX_TRIGGERS_MAX: usize = 32;
/// How old a trigger of a stored outbox may be to be sent again: 7 days. The stored outbox empties with the user's next
/// write only, which may come after months, so whoever reads the profile then would send it again; but consumers act once
/// only for as long as they remember the id.
/// The decisions table must remember longer than this (it does so for 90 days unless told otherwise).
pub const OUTBOX_RESEND_AGE_MS_MAX: i64 = 7 * 24 * 60 * 60 * 1000;
/// Offers that a profile remembers for caps, cool-downs and groups: 1.3 KB of the item. No cap may allow more.
pub const OFFERS_MADE_MAX: usize = 64;
/// Merged profiles that a profile remembers by the hashes of their keys, so that an event that names one again costs no
/// look at it. What is beyond costs a read.
pub const ALIASES_MAX: usize = 8;
/// Pointers that are followed from an id to the user that it became, one after the other.
pub const POINTERS_MAX: usize = 8;
/// Open offers that a profile keeps: with a context of 32 numbers some 200 bytes each.
pub const OPEN_OFFERS_MAX: usize = 16;
/// How long an offer is kept after its window ran out, for events that come late: 24 hours.
pub const OUTCOME_LATE_MS_MAX: i64 = 24 * 60 * 60 * 1000;
/// Rewards that a journey may define: an open offer keeps a bit for each.
pub const REWARDS_MAX: usize = 16;
/// Largest reward of one thing, and the smallest with a minus: all of a journey's together are within what a learner takes.
pub const REWARD_VALUE_MAX: f64 = 65_536.0;
/// Longest time for which an offer's outcome stays open: 30 days.
pub const OUTCOME_WITHIN_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1000;
/// Trends that a journey may define.
pub const TRENDS_MAX: usize = 16;
/// Longest window of a trend: 1 hour. Whoever decides by trends reads all tiles of the window when it starts: 960 queries.
pub const TREND_WITHIN_MS_MAX: i64 = 60 * 60 * 1000;
/// How long a minute of trends is kept at least, whatever windows the journey has: an hour, for people who ask.
pub const TREND_KEPT_MS_MIN: i64 = 60 * 60 * 1000;
/// The size of the table that a tile of trends counts in: it holds 384 keys exactly, some 9 KB with ids of 20 bytes, and
/// beyond them the sketch is off by 0.7 % of what it counted at most.
pub const TREND_TILE_MAP_SIZE: usize = 512;
/// Event ids that a tile of trends remembers, in 32 bits each: a producer that sends a record twice does so within moments.
pub const TREND_TILE_IDS_MAX: usize = 64;
/// Counts that a snapshot of trends holds, those of each minute apart: 2 million, some 60 MB. A minute that has more than its
/// part keeps the highest.
pub const TREND_SNAPSHOT_COUNTS_MAX: usize = 2 * 1024 * 1024;
/// Attributes that a content may have.
pub const CONTENT_ATTRIBUTES_MAX: usize = 16;
/// Reminders that one timer may have.
pub const REMINDERS_MAX: usize = 16;
/// How long before the arrival of the event that it counts from a reminder may have been due to be made still: 24 hours.
/// What an import or a device that was offline tells late would make reminders of days ago, all at once.
pub const TIMER_LATE_MS_MAX: i64 = 24 * 60 * 60 * 1000;
/// Longest time that a timer may wait: 365 days.
pub const TIMER_MS_MAX: i64 = 365 * 24 * 60 * 60 * 1000;
/// Caps that a policy may have.
pub const CAPS_MAX: usize = 16;
/// Groups of rules that exclude each other.
pub const GROUPS_MAX: usize = 32;
/// Experiments that a journey may run at once.
pub const EXPERIMENTS_MAX: usize = 16;
/// Arms that an experiment may have.
pub const ARMS_MAX: usize = 16;
/// Candidates of a choice that its decision names, at most: of more, the chosen one and the likeliest.
pub const CANDIDATES_SHOWN_MAX: usize = 32;
/// What a decision says of a choice, in bytes: values of the context beyond it are left out, and so are candidates' features. It
/// lies in the profile until it is sent.
pub const CHOICE_BYTES_MAX: usize = 4096;
/// Rules that did not fire which a decision names with their reasons, at most.
pub const REASON_RULES_MAX: usize = 16;
/// What a decision says of the rules that did not fire, in bytes: rules beyond it go without the values that they saw.
pub const PASSED_OVER_BYTES_MAX: usize = 2048;
/// Longest text of a rule's condition in a decision, in bytes: of a longer one the front.
pub const CONDITION_SHOWN_BYTES_MAX: usize = 1024;
/// Longest text in a decision that tells people why a rule did not fire, in bytes.
pub const DETAIL_BYTES_MAX: usize = 256;
/// Event types for which `explain` says what a rule would make of each.
pub const EXPLAINED_TYPES_MAX: usize = 16;
/// Sessions kept as intervals, so that late events can still join them; older ones only count.
pub const OPEN_SESSIONS_MAX: usize = 4;
/// Values that a rule's reason reports at most.
pub const REASON_VALUES_MAX: usize = 16;
/// Longest text that a profile stores for a feature or trait, in bytes; a longer one is left out and counted.
pub const STORED_TEXT_BYTES_MAX: usize = 256;

/// Shortest window that a feature may ask for: 1 minute.
pub const WINDOW_MS_MIN: i64 = 60 * 1000;
/// Longest window that a feature may ask for: 90 days.
pub const WINDOW_MS_MAX: i64 = 90 * 24 * 60 * 60 * 1000;
/// Longest idle time after which a session ends: 24 hours.
pub const SESSION_IDLE_MS_MAX: i64 = 24 * 60 * 60 * 1000;
/// Longest list that a `recent` feature may keep.
pub const RECENT_ENTRIES_MAX: usize = 50;
/// Length of a `recent` list that does not say.
pub const RECENT_ENTRIES_DEFAULT: usize = 10;
/// Largest number that a `sum` takes from one event; what is beyond it is left out, as an infinity would be.
pub const SUM_VALUE_MAX: f64 = 1e15;

/// Distinct values that are counted exactly, over all time; beyond that a sketch estimates them.
pub const DISTINCT_EXACT_MAX: usize = 32;
/// Distinct values from which the number within a window is estimated. Below it is exact.
pub const DISTINCT_SAMPLE: usize = 64;
/// Hashes that the sample of distinct values within a window keeps at most, the oldest leaving first. In a random order
/// of coming, n values leave about 64 (1 + ln(n / 64)) of them, so it takes some 70,000 in a window to reach this.
pub const DISTINCT_SAMPLE_ENTRIES_MAX: usize = 512;
/// Values that a `top` counts. Up to here its counts are exact.
pub const TOP_TRACKED_MAX: usize = 24;
/// Values that a `top` may be asked for.
pub const TOP_LIMIT_MAX: usize = 10;
/// Tiles in the window of a `top`, which keeps one for each value that it counts: so its answers are exact to a 48th of
/// the window.
pub const TOP_TILES: i64 = 48;
/// Values that an `interacted_with` remembers, unless it says otherwise.
pub const INTERACTED_ENTRIES_DEFAULT: usize = 50;
/// The most values that an `interacted_with` may remember: with ids of 20 bytes, 6.6 KB of the item.
pub const INTERACTED_ENTRIES_MAX: usize = 200;
/// Half-lives after which what an event added to a score is forgotten: it is worth a millionth by then.
pub const SCORE_HALF_LIVES_MAX: i64 = 20;
/// Shortest half-life of a score: 1 minute.
pub const HALF_LIFE_MS_MIN: i64 = 60 * 1000;
/// Longest half-life of a score: 90 days.
pub const HALF_LIFE_MS_MAX: i64 = WINDOW_MS_MAX;
/// Event types that a score may weigh.
pub const SCORE_WEIGHTS_MAX: usize = 32;
/// Largest weight of an event in a score, and the smallest with a minus.
pub const SCORE_WEIGHT_MAX: f64 = 1000.0;
/// Largest part of a rate's prior.
pub const RATE_PRIOR_MAX: f64 = 1e6;
/// Parts that reading an `expr` may evaluate, those of the expressions that it reads included.
pub const EXPR_READS_MAX: usize = 256;

/// Features that a journey may define.
pub const FEATURES_MAX: usize = 64;
/// Steps that a journey may define.
pub const STEPS_MAX: usize = 64;
/// Triggers (rules) that a journey may define.
pub const RULES_MAX: usize = 64;
/// Contents that a journey may define.
pub const CONTENTS_MAX: usize = 1024;
/// Traits that the conditions of a journey may read.
pub const TRAITS_MAX: usize = 64;
/// Event types that one list of a journey may name.
pub const EVENT_TYPES_MAX: usize = 1024;
/// Longest condition, in bytes.
pub const CONDITION_BYTES_MAX: usize = 4096;
/// Deepest nesting of a condition.
pub const CONDITION_DEPTH_MAX: usize = 64;
/// Largest compiled pattern of a condition's `matches`, in bytes.
pub const PATTERN_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Properties of an event, in bytes, that a condition in the interpreter reads at most: it takes all of them apart.
pub const INTERPRETED_BYTES_MAX: usize = 64 * 1024;
/// The same for a condition with a macro such as `exists`. What stands in it may walk a list for each entry of another, as in
/// `a.all(x, x in b)`, so its time grows with the square of the size: 64 KB would take seconds.
pub const WALKED_BYTES_MAX: usize = 8 * 1024;
/// Largest journey file, in bytes.
pub const JOURNEY_BYTES_MAX: usize = 1024 * 1024;
/// Mistakes of a journey file that are told at once; with more than these, it is hardly meant as one.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Longest part of a journey file that is quoted in telling a mistake, in bytes.
pub const DIAGNOSTIC_TEXT_BYTES_MAX: usize = 1024;
/// Deepest nesting of a journey file.
pub const JOURNEY_DEPTH_MAX: usize = 16;
