//! The configuration of the functions: read once from a lookup that a test can replace, and refused once with every
//! mistake in it.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;
use usher_pipeline::timer_sweeper::{PASS_INTERVAL_DEFAULT, PASSES_DEFAULT};

/// Where settings come from: gives the value of a name. [`environment`] is the real one.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the journey is, unless `USHER_JOURNEY_PATH` says otherwise: the place where Lambda unpacks the journey's layer.
pub const JOURNEY_PATH_DEFAULT: &str = "/opt/journey.yaml";
/// How long a journey runs before the function looks for a new one, unless `USHER_JOURNEY_REFRESH_MS` says otherwise.
pub const JOURNEY_REFRESH_MS_DEFAULT: u64 = 30_000;
/// What `USHER_JOURNEY_REFRESH_MS` may be: up to a day.
pub const JOURNEY_REFRESH_MS_RANGE: RangeInclusive<u64> = 100..=86_400_000;
/// The port of AWS AppConfig's extension, unless `AWS_APPCONFIG_EXTENSION_HTTP_PORT` says otherwise.
pub const APPCONFIG_EXTENSION_PORT_DEFAULT: u16 = 2772;
/// The port of the extension for parameters and secrets, unless `PARAMETERS_SECRETS_EXTENSION_HTTP_PORT` says otherwise.
pub const PARAMETERS_EXTENSION_PORT_DEFAULT: u16 = 2773;
/// The CloudWatch namespace of the metrics, unless `USHER_METRICS_NAMESPACE` says otherwise.
pub const METRICS_NAMESPACE_DEFAULT: &str = "Usher";
/// Profiles that are written at the same time, unless `USHER_WRITE_CONCURRENCY` says otherwise.
pub const WRITE_CONCURRENCY_DEFAULT: usize = 32;
/// What `USHER_WRITE_CONCURRENCY` may be.
pub const WRITE_CONCURRENCY_RANGE: RangeInclusive<usize> = 1..=256;
/// Batches of one shard that run at once, unless `USHER_PARALLELIZATION_FACTOR` says otherwise: as the event source
/// mapping has it by default.
pub const PARALLELIZATION_FACTOR_DEFAULT: u32 = 1;
/// What `USHER_PARALLELIZATION_FACTOR` may be: as the mapping's `ParallelizationFactor`.
pub const PARALLELIZATION_FACTOR_RANGE: RangeInclusive<u32> = 1..=10;
/// Users whose decisions are delivered at the same time. A receiver sees at most this many connections from one
/// invocation.
pub const DELIVERY_CONCURRENCY: usize = 16;
/// Tiles of trends that are written at the same time: nearly always there are one or two.
pub const TILE_CONCURRENCY: usize = 16;
/// How long what was learned from all users is decided with before it is read again, unless `USHER_SNAPSHOT_REFRESH_MS` says
/// otherwise.
pub const SNAPSHOT_REFRESH_MS_DEFAULT: u64 = 2_000;
/// What `USHER_SNAPSHOT_REFRESH_MS` may be. Above 10 seconds is for comparing with what learns in steps.
pub const SNAPSHOT_REFRESH_MS_RANGE: RangeInclusive<u64> = 10..=3_600_000;
/// Slots whose models are written at the same time.
pub const SLOT_CONCURRENCY: usize = 16;
/// Days that a decision is kept, unless `USHER_DECISION_TTL_DAYS` says otherwise.
pub const DECISION_TTL_DAYS_DEFAULT: u32 = 90;
/// What `USHER_DECISION_TTL_DAYS` may be: longer than a trigger may be sent again
/// ([`usher_domain::limits::OUTBOX_RESEND_AGE_MS_MAX`], 7 days), or it would be delivered again; up to 10 years.
pub const DECISION_TTL_DAYS_RANGE: RangeInclusive<u32> = 8..=3650;
/// How long a webhook may take, unless `USHER_WEBHOOK_TIMEOUT_MS` says otherwise.
pub const WEBHOOK_TIMEOUT_MS_DEFAULT: u64 = 3_000;
/// What `USHER_WEBHOOK_TIMEOUT_MS` may be. The upper end is half of the function's own timeout in template.yaml.
pub const WEBHOOK_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 100..=30_000;
/// What `USHER_SWEEP_PASSES` may be.
pub const SWEEP_PASSES_RANGE: RangeInclusive<u32> = 1..=60;
/// What `USHER_SWEEP_INTERVAL_MS` may be.
pub const SWEEP_INTERVAL_MS_RANGE: RangeInclusive<u64> = 100..=60_000;

/// Length of a webhook's key in bytes, as the Standard Webhooks specification asks.
const WEBHOOK_KEY_BYTES: RangeInclusive<usize> = 24..=64;
/// Longest CloudWatch namespace.
const METRICS_NAMESPACE_CHARS_MAX: usize = 255;
/// Shortest and longest name of a DynamoDB table.
const TABLE_NAME_CHARS: RangeInclusive<usize> = 3..=255;
/// Shortest and longest name of a Kinesis stream.
const STREAM_NAME_CHARS: RangeInclusive<usize> = 1..=128;

const TABLE_ALLOWED: &str = "the name of a DynamoDB table (3 to 255 letters, digits and `_.-`) or its ARN";
const STREAM_ALLOWED: &str = "the name of a Kinesis stream (1 to 128 letters, digits and `_.-`) or its ARN";
const NAMESPACE_ALLOWED: &str = "1 to 255 letters, digits, spaces and `.-_/#:`, not starting with `AWS/`";
const JOURNEY_SOURCE_ALLOWED: &str = "`file:PATH`, `appconfig:APPLICATION/ENVIRONMENT/PROFILE` (names or ids) or `ssm:PARAMETER-NAME`, such as `file:/opt/journey.yaml` or `ssm:/usher/journey`";
const SESSION_TOKEN_ALLOWED: &str =
    "the function's session token, which Lambda sets; with USHER_JOURNEY_SOURCE=ssm:... the extension asks for it";
const URL_ALLOWED: &str = "an http:// or https:// URL with a host";
const SECRET_ALLOWED: &str =
    "`whsec_` and 24 to 64 bytes in base64, such as printed by `echo whsec_$(openssl rand -base64 32)`";

/// The process' environment variable `name`.
///
/// This is the one place where Usher's functions read the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge that everything else gets injected from"
)]
pub fn environment(name: &str) -> Option<String> {
    // What is not Unicode becomes so here and is refused by the check of its setting, with its name.
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The environment variable.
    pub name: &'static str,
    /// What it holds; none if it is not set. Secrets are replaced by `(hidden)`.
    pub value: Option<String>,
    /// What it may hold.
    pub allowed: String,
}

/// Every setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order in which they are read.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "set these environment variables right:")?;
        for Mistake { name, value, allowed } in &self.mistakes {
            match value {
                Some(value) => write!(formatter, "\n  {name} is `{value}`; it must be {allowed}")?,
                None => write!(formatter, "\n  {name} is not set; it must be {allowed}")?,
            }
        }
        Ok(())
    }
}

/// The settings of the function `profile-writer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileWriterSettings {
    /// `USHER_PROFILES_TABLE`: the table's name or ARN.
    pub profiles_table: String,
    /// `USHER_TRIGGERS_STREAM`: the stream's name or ARN.
    pub triggers_stream: String,
    /// `USHER_REJECTED_STREAM`: the stream's name or ARN.
    pub rejected_stream: String,
    /// Where the journey is.
    pub journey: JourneySettings,
    /// `USHER_METRICS_NAMESPACE`.
    pub metrics_namespace: String,
    /// `USHER_WRITE_CONCURRENCY`: profiles that are written at the same time.
    pub write_concurrency: usize,
    /// `USHER_PARALLELIZATION_FACTOR`: batches of one shard that Lambda runs at once.
    pub parallelization_factor: u32,
    /// Where what was learned from all users is; none where decisions are made without.
    pub snapshots: Option<SnapshotSettings>,
}

/// Where what was learned from all users is, and how often to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// `USHER_MODELS_TABLE`: the table's name or ARN.
    pub models_table: String,
    /// `USHER_TRENDS_TABLE`: the table's name or ARN.
    pub trends_table: String,
    /// `USHER_SNAPSHOT_REFRESH_MS`: the shortest time between two looks.
    pub refresh_interval: Duration,
}

impl ProfileWriterSettings {
    /// Reads them all.
    ///
    /// # Errors
    /// Every setting that is missing or can't be used.
    pub fn read(lookup: Lookup<'_>) -> Result<ProfileWriterSettings, ConfigError> {
        let mut reader = Reader {
            lookup,
            mistakes: Vec::new(),
        };
        let settings = ProfileWriterSettings {
            profiles_table: reader.required("USHER_PROFILES_TABLE", TABLE_ALLOWED, is_table),
            triggers_stream: reader.required("USHER_TRIGGERS_STREAM", STREAM_ALLOWED, is_stream),
            rejected_stream: reader.required("USHER_REJECTED_STREAM", STREAM_ALLOWED, is_stream),
            journey: reader.journey(),
            metrics_namespace: reader.metrics_namespace(),
            write_concurrency: reader.number(
                "USHER_WRITE_CONCURRENCY",
                WRITE_CONCURRENCY_DEFAULT,
                WRITE_CONCURRENCY_RANGE,
            ),
            parallelization_factor: reader.number(
                "USHER_PARALLELIZATION_FACTOR",
                PARALLELIZATION_FACTOR_DEFAULT,
                PARALLELIZATION_FACTOR_RANGE,
            ),
            snapshots: reader.snapshots(),
        };
        reader.finish(settings)
    }
}

/// Where the journey is, and how often to look for a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JourneySettings {
    /// `USHER_JOURNEY_SOURCE`; without it, the file `USHER_JOURNEY_PATH`.
    pub location: JourneyLocation,
    /// `USHER_JOURNEY_REFRESH_MS`: the shortest time between two looks for a new one.
    pub refresh_interval: Duration,
}

/// Where the journey is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JourneyLocation {
    /// A file, such as the one that its Lambda layer holds.
    File(PathBuf),
    /// A configuration profile of AWS AppConfig, asked for through its Lambda extension.
    AppConfig {
        /// The application's name or id.
        application: String,
        /// The environment's name or id.
        environment: String,
        /// The configuration profile's name or id.
        profile: String,
        /// Where the extension listens on this machine.
        port: u16,
    },
    /// A parameter of the Systems Manager, asked for through the Lambda extension for parameters and secrets.
    Ssm {
        /// The parameter's name.
        parameter: String,
        /// Where the extension listens on this machine.
        port: u16,
        /// What the extension knows the function by.
        session_token: SessionToken,
    },
}

/// The session token of the function's credentials. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// The token itself, for the extension.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl From<&str> for SessionToken {
    fn from(token: &str) -> SessionToken {
        SessionToken(token.to_owned())
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionToken(hidden)")
    }
}

/// The settings of the function `trigger-delivery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerDeliverySettings {
    /// `USHER_DECISIONS_TABLE`: the table's name or ARN.
    pub decisions_table: String,
    /// `USHER_DECISION_TTL_DAYS`: days that a decision is kept.
    pub decision_ttl_days: u32,
    /// `USHER_METRICS_NAMESPACE`.
    pub metrics_namespace: String,
    /// Where decisions are sent; none if they are only recorded and logged.
    pub webhook: Option<WebhookSettings>,
}

impl TriggerDeliverySettings {
    /// Reads them all.
    ///
    /// # Errors
    /// Every setting that is missing or can't be used.
    pub fn read(lookup: Lookup<'_>) -> Result<TriggerDeliverySettings, ConfigError> {
        let mut reader = Reader {
            lookup,
            mistakes: Vec::new(),
        };
        let settings = TriggerDeliverySettings {
            decisions_table: reader.required("USHER_DECISIONS_TABLE", TABLE_ALLOWED, is_table),
            decision_ttl_days: reader.number(
                "USHER_DECISION_TTL_DAYS",
                DECISION_TTL_DAYS_DEFAULT,
                DECISION_TTL_DAYS_RANGE,
            ),
            metrics_namespace: reader.metrics_namespace(),
            webhook: reader.webhook(),
        };
        reader.finish(settings)
    }
}

/// The settings of the function `timer-sweeper`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerSweeperSettings {
    /// `USHER_PROFILES_TABLE`: the table's name or ARN.
    pub profiles_table: String,
    /// `USHER_INTERACTIONS_STREAM`: the stream's name or ARN.
    pub interactions_stream: String,
    /// `USHER_SWEEP_PASSES`: looks at the index in one invocation.
    pub passes: u32,
    /// `USHER_SWEEP_INTERVAL_MS`: from one look to the next.
    pub pass_interval: Duration,
    /// `USHER_METRICS_NAMESPACE`.
    pub metrics_namespace: String,
}

impl TimerSweeperSettings {
    /// Reads them all.
    ///
    /// # Errors
    /// Every setting that is missing or can't be used.
    pub fn read(lookup: Lookup<'_>) -> Result<TimerSweeperSettings, ConfigError> {
        let mut reader = Reader {
            lookup,
            mistakes: Vec::new(),
        };
        let interval_ms_default = u64::try_from(PASS_INTERVAL_DEFAULT.as_millis()).unwrap_or(u64::MAX);
        let settings = TimerSweeperSettings {
            profiles_table: reader.required("USHER_PROFILES_TABLE", TABLE_ALLOWED, is_table),
            interactions_stream: reader.required("USHER_INTERACTIONS_STREAM", STREAM_ALLOWED, is_stream),
            passes: reader.number("USHER_SWEEP_PASSES", PASSES_DEFAULT, SWEEP_PASSES_RANGE),
            pass_interval: Duration::from_millis(reader.number(
                "USHER_SWEEP_INTERVAL_MS",
                interval_ms_default,
                SWEEP_INTERVAL_MS_RANGE,
            )),
            metrics_namespace: reader.metrics_namespace(),
        };
        reader.finish(settings)
    }
}

/// The settings of the function `content-trends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentTrendsSettings {
    /// `USHER_TRENDS_TABLE`: the table's name or ARN.
    pub trends_table: String,
    /// Where the journey is.
    pub journey: JourneySettings,
    /// `USHER_METRICS_NAMESPACE`.
    pub metrics_namespace: String,
}

impl ContentTrendsSettings {
    /// Reads them all.
    ///
    /// # Errors
    /// Every setting that is missing or can't be used.
    pub fn read(lookup: Lookup<'_>) -> Result<ContentTrendsSettings, ConfigError> {
        let mut reader = Reader {
            lookup,
            mistakes: Vec::new(),
        };
        let settings = ContentTrendsSettings {
            trends_table: reader.required("USHER_TRENDS_TABLE", TABLE_ALLOWED, is_table),
            journey: reader.journey(),
            metrics_namespace: reader.metrics_namespace(),
        };
        reader.finish(settings)
    }
}

/// The settings of the function `outcome-learner`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeLearnerSettings {
    /// `USHER_MODELS_TABLE`: the table's name or ARN.
    pub models_table: String,
    /// Where the journey is.
    pub journey: JourneySettings,
    /// `USHER_METRICS_NAMESPACE`.
    pub metrics_namespace: String,
}

impl OutcomeLearnerSettings {
    /// Reads them all.
    ///
    /// # Errors
    /// Every setting that is missing or can't be used.
    pub fn read(lookup: Lookup<'_>) -> Result<OutcomeLearnerSettings, ConfigError> {
        let mut reader = Reader {
            lookup,
            mistakes: Vec::new(),
        };
        let settings = OutcomeLearnerSettings {
            models_table: reader.required("USHER_MODELS_TABLE", TABLE_ALLOWED, is_table),
            journey: reader.journey(),
            metrics_namespace: reader.metrics_namespace(),
        };
        reader.finish(settings)
    }
}

/// Where decisions are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// `USHER_WEBHOOK_URL`.
    pub url: Url,
    /// `USHER_WEBHOOK_SECRET`.
    pub secret: WebhookSecret,
    /// `USHER_WEBHOOK_TIMEOUT_MS`: how long one request may take, connecting included.
    pub timeout: Duration,
}

impl fmt::Debug for WebhookSettings {
    /// Names the receiver only: a webhook's path and query are often secrets themselves.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WebhookSettings")
            .field("url", &receiver_name(&self.url))
            .field("secret", &self.secret)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// A webhook's address as far as it may be shown: scheme, host and port.
pub(crate) fn receiver_name(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The key that webhooks are signed with. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(String);

impl WebhookSecret {
    const PREFIX: &'static str = "whsec_";

    /// From `whsec_` and 24 to 64 bytes in base64; none if it is something else.
    pub fn parse(text: &str) -> Option<WebhookSecret> {
        let base64 = text.strip_prefix(WebhookSecret::PREFIX)?;
        let key_bytes = base64.trim_end_matches('=').len() * 3 / 4;
        let decodes = standardwebhooks::Webhook::new(text).is_ok();
        (decodes && WEBHOOK_KEY_BYTES.contains(&key_bytes)).then(|| WebhookSecret(text.to_owned()))
    }

    /// The secret itself, for the signer.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSecret(hidden)")
    }
}

/// Reads settings one by one and keeps the mistakes. After a mistake it gives a stand-in, which never leaves this
/// module, because [`Reader::finish`] fails then.
struct Reader<'a> {
    lookup: Lookup<'a>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    /// The setting; none if it is not set. An empty one counts as not set, because templates and shells can hardly
    /// leave a variable out.
    fn optional(&self, name: &'static str) -> Option<String> {
        let value = (self.lookup)(name)?;
        let trimmed = value.trim();
        (!trimmed.is_empty()).then(|| trimmed.to_owned())
    }

    fn mistake(&mut self, name: &'static str, value: Option<String>, allowed: impl Into<String>) {
        self.mistakes.push(Mistake {
            name,
            value,
            allowed: allowed.into(),
        });
    }

    fn required(&mut self, name: &'static str, allowed: &str, is_allowed: fn(&str) -> bool) -> String {
        let value = self.optional(name);
        match value {
            Some(value) if is_allowed(&value) => value,
            wrong => {
                self.mistake(name, wrong, allowed);
                String::new()
            }
        }
    }

    fn number<N>(&mut self, name: &'static str, default: N, allowed: RangeInclusive<N>) -> N
    where
        N: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.optional(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if allowed.contains(&number) => number,
            _ => {
                let range = format!("a whole number from {} to {}", allowed.start(), allowed.end());
                self.mistake(name, Some(text), range);
                default
            }
        }
    }

    fn journey(&mut self) -> JourneySettings {
        let refresh_ms = self.number(
            "USHER_JOURNEY_REFRESH_MS",
            JOURNEY_REFRESH_MS_DEFAULT,
            JOURNEY_REFRESH_MS_RANGE,
        );
        JourneySettings {
            location: self.journey_location(),
            refresh_interval: Duration::from_millis(refresh_ms),
        }
    }

    /// Both tables or none.
    fn snapshots(&mut self) -> Option<SnapshotSettings> {
        const NAMES: [&str; 2] = ["USHER_MODELS_TABLE", "USHER_TRENDS_TABLE"];
        let refresh_ms = self.number(
            "USHER_SNAPSHOT_REFRESH_MS",
            SNAPSHOT_REFRESH_MS_DEFAULT,
            SNAPSHOT_REFRESH_MS_RANGE,
        );
        if NAMES.iter().all(|name| self.optional(name).is_none()) {
            return None;
        }
        let [models_table, trends_table] = NAMES.map(|name| self.required(name, TABLE_ALLOWED, is_table));
        Some(SnapshotSettings {
            models_table,
            trends_table,
            refresh_interval: Duration::from_millis(refresh_ms),
        })
    }

    fn journey_location(&mut self) -> JourneyLocation {
        let source = self.optional("USHER_JOURNEY_SOURCE");
        let path = self.optional("USHER_JOURNEY_PATH");
        let file = JourneyLocation::File(path.unwrap_or_else(|| JOURNEY_PATH_DEFAULT.to_owned()).into());
        let Some(source) = source else {
            return file;
        };
        match source.split_once(':') {
            Some(("file", path)) if !path.is_empty() => return JourneyLocation::File(path.into()),
            Some(("appconfig", place)) => {
                let parts: Vec<&str> = place.split('/').collect();
                if let [application, environment, profile] = parts[..]
                    && parts.iter().all(|part| !part.is_empty())
                {
                    return JourneyLocation::AppConfig {
                        application: application.to_owned(),
                        environment: environment.to_owned(),
                        profile: profile.to_owned(),
                        port: self.port("AWS_APPCONFIG_EXTENSION_HTTP_PORT", APPCONFIG_EXTENSION_PORT_DEFAULT),
                    };
                }
            }
            Some(("ssm", parameter)) if !parameter.is_empty() => {
                return JourneyLocation::Ssm {
                    parameter: parameter.to_owned(),
                    port: self.port(
                        "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT",
                        PARAMETERS_EXTENSION_PORT_DEFAULT,
                    ),
                    session_token: SessionToken(self.required("AWS_SESSION_TOKEN", SESSION_TOKEN_ALLOWED, |_| true)),
                };
            }
            _ => {}
        }
        self.mistake("USHER_JOURNEY_SOURCE", Some(source), JOURNEY_SOURCE_ALLOWED);
        file
    }

    fn port(&mut self, name: &'static str, default: u16) -> u16 {
        self.number(name, default, 1..=u16::MAX)
    }

    fn metrics_namespace(&mut self) -> String {
        let name = "USHER_METRICS_NAMESPACE";
        match self.optional(name) {
            None => METRICS_NAMESPACE_DEFAULT.to_owned(),
            Some(namespace) if is_metrics_namespace(&namespace) => namespace,
            wrong => {
                self.mistake(name, wrong, NAMESPACE_ALLOWED);
                String::new()
            }
        }
    }

    fn webhook(&mut self) -> Option<WebhookSettings> {
        let url_text = self.optional("USHER_WEBHOOK_URL");
        let url = url_text
            .as_deref()
            .and_then(|text| Url::parse(text).ok())
            .filter(is_webhook_url);
        let secret_text = self.optional("USHER_WEBHOOK_SECRET");
        let secret = secret_text.as_deref().and_then(WebhookSecret::parse);
        let timeout_ms = self.number(
            "USHER_WEBHOOK_TIMEOUT_MS",
            WEBHOOK_TIMEOUT_MS_DEFAULT,
            WEBHOOK_TIMEOUT_MS_RANGE,
        );

        if url_text.is_some() && url.is_none() {
            // It may hold a password or a token, so it is not repeated.
            self.mistake("USHER_WEBHOOK_URL", Some("(hidden)".to_owned()), URL_ALLOWED);
        }
        if url_text.is_none() && secret_text.is_some() {
            let allowed = format!("{URL_ALLOWED}, because USHER_WEBHOOK_SECRET is set");
            self.mistake("USHER_WEBHOOK_URL", None, allowed);
        }
        if url_text.is_some() && secret_text.is_none() {
            let allowed = format!("{SECRET_ALLOWED}, because USHER_WEBHOOK_URL is set");
            self.mistake("USHER_WEBHOOK_SECRET", None, allowed);
        }
        if secret_text.is_some() && secret.is_none() {
            self.mistake("USHER_WEBHOOK_SECRET", Some("(hidden)".to_owned()), SECRET_ALLOWED);
        }
        Some(WebhookSettings {
            url: url?,
            secret: secret?,
            timeout: Duration::from_millis(timeout_ms),
        })
    }

    fn finish<T>(self, settings: T) -> Result<T, ConfigError> {
        if self.mistakes.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError {
                mistakes: self.mistakes,
            })
        }
    }
}

fn is_table(text: &str) -> bool {
    is_arn_of(text, "dynamodb") || is_resource_name(text, TABLE_NAME_CHARS)
}

fn is_stream(text: &str) -> bool {
    is_arn_of(text, "kinesis") || is_resource_name(text, STREAM_NAME_CHARS)
}

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
fn is_arn_of(text: &str, service: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    parts.next() == Some("arn")
        && parts.next().is_some()
        && parts.next() == Some(service)
        && parts.nth(2).is_some_and(|resource| !resource.is_empty())
}

fn is_resource_name(text: &str, chars: RangeInclusive<usize>) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    chars.contains(&text.len()) && text.bytes().all(allowed)
}

fn is_metrics_namespace(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b" .-_/#:".contains(&byte);
    text.len() <= METRICS_NAMESPACE_CHARS_MAX && !text.starts_with("AWS/") && text.bytes().all(allowed)
}

fn is_webhook_url(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn lookup_in<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            set.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    const WRITER_REQUIRED: [(&str, &str); 3] = [
        ("USHER_PROFILES_TABLE", "profiles"),
        ("USHER_TRIGGERS_STREAM", "triggers"),
        (
            "USHER_REJECTED_STREAM",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/rejected",
        ),
    ];

    #[test]
    fn profile_writer_needs_three_names_and_has_a_default_for_the_rest() {
        let settings = ProfileWriterSettings::read(&lookup_in(&WRITER_REQUIRED)).expect("they are all there");
        assert_eq!(
            settings,
            ProfileWriterSettings {
                profiles_table: "profiles".to_owned(),
                triggers_stream: "triggers".to_owned(),
                rejected_stream: "arn:aws:kinesis:eu-west-1:123456789012:stream/rejected".to_owned(),
                journey: JourneySettings {
                    location: JourneyLocation::File("/opt/journey.yaml".into()),
                    refresh_interval: Duration::from_secs(30),
                },
                metrics_namespace: "Usher".to_owned(),
                write_concurrency: 32,
                parallelization_factor: 1,
                snapshots: None,
            }
        );
    }

    #[test]
    fn what_was_learned_is_read_from_both_tables_or_none() {
        let (models, trends) = (("USHER_MODELS_TABLE", "models"), ("USHER_TRENDS_TABLE", "trends"));
        for (set, wrong) in [
            (vec![], None),
            (vec![models, trends], None),
            (vec![models, trends, ("USHER_SNAPSHOT_REFRESH_MS", "10000")], None),
            (vec![models], Some("USHER_TRENDS_TABLE")),
            (vec![trends], Some("USHER_MODELS_TABLE")),
            (
                vec![models, trends, ("USHER_SNAPSHOT_REFRESH_MS", "5")],
                Some("USHER_SNAPSHOT_REFRESH_MS"),
            ),
        ] {
            let all: Vec<_> = WRITER_REQUIRED.iter().chain(&set).copied().collect();
            match ProfileWriterSettings::read(&lookup_in(&all)) {
                Ok(settings) => {
                    assert_eq!(wrong, None, "{set:?}");
                    assert_eq!(settings.snapshots.is_some(), !set.is_empty(), "{set:?}");
                }
                Err(error) => assert_eq!(Some(error.mistakes[0].name), wrong, "{set:?}"),
            }
        }
    }

    #[test]
    fn outcome_learner_needs_its_table() {
        let settings = OutcomeLearnerSettings::read(&lookup_in(&[("USHER_MODELS_TABLE", "models")]));
        assert_eq!(settings.map(|settings| settings.models_table), Ok("models".to_owned()));
        let error = OutcomeLearnerSettings::read(&lookup_in(&[])).expect_err("there is none");
        assert_eq!(error.mistakes[0].name, "USHER_MODELS_TABLE");
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_name_its_value_and_what_is_allowed() {
        let set = [
            ("USHER_PROFILES_TABLE", " "),
            ("USHER_TRIGGERS_STREAM", "no spaces"),
            ("USHER_METRICS_NAMESPACE", "AWS/Kinesis"),
            ("USHER_WRITE_CONCURRENCY", "0"),
        ];
        let error = ProfileWriterSettings::read(&lookup_in(&set)).expect_err("five are wrong");
        let message = error.to_string();
        let told: Vec<&str> = error.mistakes.iter().map(|mistake| mistake.name).collect();
        assert_eq!(
            told,
            [
                "USHER_PROFILES_TABLE",
                "USHER_TRIGGERS_STREAM",
                "USHER_REJECTED_STREAM",
                "USHER_METRICS_NAMESPACE",
                "USHER_WRITE_CONCURRENCY"
            ]
        );
        for part in [
            "USHER_PROFILES_TABLE is not set; it must be the name of a DynamoDB table",
            "USHER_TRIGGERS_STREAM is `no spaces`; it must be the name of a Kinesis stream",
            "USHER_WRITE_CONCURRENCY is `0`; it must be a whole number from 1 to 256",
        ] {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }

    #[test]
    fn what_each_setting_may_be() {
        for (name, value, is_right) in [
            ("USHER_PROFILES_TABLE", "abc", true),
            ("USHER_PROFILES_TABLE", "ab", false),
            (
                "USHER_PROFILES_TABLE",
                "arn:aws:dynamodb:eu-west-1:123456789012:table/profiles",
                true,
            ),
            (
                "USHER_PROFILES_TABLE",
                "arn:aws:kinesis:eu-west-1:123456789012:stream/profiles",
                false,
            ),
            (
                "USHER_PROFILES_TABLE",
                "arn:aws:dynamodb:eu-west-1:123456789012:",
                false,
            ),
            ("USHER_TRIGGERS_STREAM", "t", true),
            (
                "USHER_TRIGGERS_STREAM",
                "arn:aws-cn:kinesis:cn-north-1:1:stream/t",
                true,
            ),
            ("USHER_TRIGGERS_STREAM", "stream/t", false),
            ("USHER_WRITE_CONCURRENCY", "", true),
            ("USHER_WRITE_CONCURRENCY", "1", true),
            ("USHER_WRITE_CONCURRENCY", " 256\n", true),
            ("USHER_WRITE_CONCURRENCY", "257", false),
            ("USHER_WRITE_CONCURRENCY", "-1", false),
            ("USHER_WRITE_CONCURRENCY", "many", false),
            ("USHER_METRICS_NAMESPACE", "Usher/staging", true),
            ("USHER_METRICS_NAMESPACE", "a\"b", false),
        ] {
            let set: Vec<(&str, &str)> = [(name, value)].into_iter().chain(WRITER_REQUIRED).collect();
            assert_eq!(
                ProfileWriterSettings::read(&lookup_in(&set)).is_ok(),
                is_right,
                "{name}={value}"
            );
        }
    }

    #[test]
    fn timer_sweeper_needs_two_names_and_has_a_default_for_the_rest() {
        let names = [
            ("USHER_PROFILES_TABLE", "profiles"),
            ("USHER_INTERACTIONS_STREAM", "interactions"),
        ];
        let settings = TimerSweeperSettings::read(&lookup_in(&names)).expect("they are all there");
        assert_eq!(
            settings,
            TimerSweeperSettings {
                profiles_table: "profiles".to_owned(),
                interactions_stream: "interactions".to_owned(),
                passes: 6,
                pass_interval: Duration::from_secs(10),
                metrics_namespace: "Usher".to_owned(),
            }
        );
        for (name, value, is_right) in [
            ("USHER_SWEEP_PASSES", "1", true),
            ("USHER_SWEEP_PASSES", "0", false),
            ("USHER_SWEEP_INTERVAL_MS", "1000", true),
            ("USHER_SWEEP_INTERVAL_MS", "10s", false),
            ("USHER_INTERACTIONS_STREAM", "no spaces", false),
        ] {
            let set: Vec<(&str, &str)> = [(name, value)].into_iter().chain(names).collect();
            let is_ok = TimerSweeperSettings::read(&lookup_in(&set)).is_ok();
            assert_eq!(is_ok, is_right, "{name}={value}");
        }
    }

    #[test]
    fn content_trends_needs_its_table() {
        let settings = ContentTrendsSettings::read(&lookup_in(&[("USHER_TRENDS_TABLE", "trends")]));
        assert_eq!(settings.map(|settings| settings.trends_table), Ok("trends".to_owned()));
        let error = ContentTrendsSettings::read(&lookup_in(&[])).expect_err("it is missing");
        assert_eq!(error.mistakes[0].name, "USHER_TRENDS_TABLE");
    }

    #[test]
    fn where_the_journey_is() {
        let read = |set: &[(&str, &str)]| {
            let set: Vec<(&str, &str)> = set.iter().copied().chain(WRITER_REQUIRED).collect();
            ProfileWriterSettings::read(&lookup_in(&set)).map(|settings| settings.journey.location)
        };
        let source = "USHER_JOURNEY_SOURCE";
        let appconfig = |port| JourneyLocation::AppConfig {
            application: "shop".to_owned(),
            environment: "prod eu".to_owned(),
            profile: "journey".to_owned(),
            port,
        };
        let ssm = |port| JourneyLocation::Ssm {
            parameter: "/usher/journey".to_owned(),
            port,
            session_token: "t0ken".into(),
        };
        let token = ("AWS_SESSION_TOKEN", "t0ken");
        for (set, expected) in [
            (&[][..], JourneyLocation::File("/opt/journey.yaml".into())),
            (
                &[("USHER_JOURNEY_PATH", "j.yaml")],
                JourneyLocation::File("j.yaml".into()),
            ),
            (&[(source, "file:a:b.yaml")], JourneyLocation::File("a:b.yaml".into())),
            (&[(source, "appconfig:shop/prod eu/journey")], appconfig(2772)),
            (
                &[
                    (source, "appconfig:shop/prod eu/journey"),
                    ("AWS_APPCONFIG_EXTENSION_HTTP_PORT", "9001"),
                    ("USHER_JOURNEY_PATH", "/opt/journey.yaml"),
                ],
                appconfig(9001),
            ),
            (&[(source, "ssm:/usher/journey"), token], ssm(2773)),
            (
                &[
                    (source, "ssm:/usher/journey"),
                    ("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "9002"),
                    token,
                ],
                ssm(9002),
            ),
        ] {
            assert_eq!(read(set).as_ref(), Ok(&expected), "{set:?}");
            assert!(!format!("{expected:?}").contains("t0ken"));
        }
        for (set, wrong) in [
            (&[(source, "/opt/journey.yaml")][..], source),
            (&[(source, "file:")], source),
            (&[(source, "s3://bucket/journey.yaml")], source),
            (&[(source, "appconfig:shop/prod")], source),
            (&[(source, "appconfig:shop//journey")], source),
            (&[(source, "appconfig:shop/prod/journey/1")], source),
            (&[(source, "ssm:"), token], source),
            (&[(source, "ssm:/usher/journey")], "AWS_SESSION_TOKEN"),
            (&[("USHER_JOURNEY_REFRESH_MS", "0")], "USHER_JOURNEY_REFRESH_MS"),
        ] {
            let error = read(set).expect_err("it is wrong");
            assert_eq!(error.mistakes[0].name, wrong, "{error}");
        }
    }

    #[test]
    fn a_webhook_needs_a_url_and_a_secret_or_neither() {
        let url = "https://hooks.example.com/usher?token=t0ken";
        for (webhook_url, secret, wrong) in [
            ("", "", &[][..]),
            (url, SECRET, &[]),
            ("http://127.0.0.1:9999/", SECRET, &[]),
            (url, "", &["USHER_WEBHOOK_SECRET"]),
            ("", SECRET, &["USHER_WEBHOOK_URL"]),
            ("ftp://example.com/", SECRET, &["USHER_WEBHOOK_URL"]),
            (
                "hooks.example.com",
                "password",
                &["USHER_WEBHOOK_URL", "USHER_WEBHOOK_SECRET"],
            ),
            (url, "whsec_c2hvcnQ=", &["USHER_WEBHOOK_SECRET"]),
            (url, "whsec_*", &["USHER_WEBHOOK_SECRET"]),
            (url, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &["USHER_WEBHOOK_SECRET"]),
        ] {
            let set = [
                ("USHER_DECISIONS_TABLE", "decisions"),
                ("USHER_WEBHOOK_URL", webhook_url),
                ("USHER_WEBHOOK_SECRET", secret),
            ];
            match TriggerDeliverySettings::read(&lookup_in(&set)) {
                Ok(settings) => {
                    assert!(wrong.is_empty(), "{webhook_url} {secret}");
                    assert_eq!(settings.webhook.is_some(), !webhook_url.is_empty());
                    assert_eq!(settings.decision_ttl_days, 90);
                }
                Err(error) => {
                    let told: Vec<&str> = error.mistakes.iter().map(|mistake| mistake.name).collect();
                    assert_eq!(told, wrong, "{webhook_url} {secret}");
                    assert!(secret.is_empty() || !error.to_string().contains(secret), "{error}");
                }
            }
        }
    }

    #[test]
    fn debug_output_shows_neither_the_secret_nor_the_path_of_the_webhook() {
        let set = [
            ("USHER_DECISIONS_TABLE", "decisions"),
            ("USHER_WEBHOOK_URL", "https://name:passw0rd@hooks.example.com/t0ken"),
            ("USHER_WEBHOOK_SECRET", SECRET),
            ("USHER_WEBHOOK_TIMEOUT_MS", "500"),
        ];
        let settings = TriggerDeliverySettings::read(&lookup_in(&set)).expect("it is right");
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("https://hooks.example.com") && shown.contains("500ms"),
            "{shown}"
        );
        for hidden in ["passw0rd", "t0ken", &SECRET[6..]] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
