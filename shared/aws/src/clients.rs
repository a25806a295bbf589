//! The SDK's clients: made once, at a cold start, and shared.

use std::net::IpAddr;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{
    Credentials, SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use url::{Host, Url};

use crate::config::Lookup;
use crate::signed_http::{SignedHttp, SignedHttpError};

/// How long connecting may take. Within a region a handshake takes milliseconds, so a slower one is a lost packet and
/// a new connection is quicker than waiting.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long one call of a function may take in all. Far above the p99 of a 16 MB BatchGetItem or a 5 MiB PutRecords
/// within a region, and short enough that several tries fit into an invocation.
pub const FUNCTION_CALL_TIMEOUT: Duration = Duration::from_millis(5_000);
/// How long one call of an operator's command may take in all: 5 MiB go over a home connection of 2 Mbit/s.
pub const OPERATOR_CALL_TIMEOUT: Duration = Duration::from_millis(30_000);

/// The region of clients for an emulator, which takes any.
const EMULATOR_REGION: &str = "us-east-1";
/// The key of clients for an emulator, which takes any.
const EMULATOR_KEY: &str = "local";

/// Who makes the calls; decides how patient they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A Lambda function, in the region of what it calls.
    Function,
    /// A command on somebody's machine, anywhere.
    Operator,
}

/// The clients. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Clients {
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
}

impl Clients {
    /// Makes them from the environment as every AWS tool does: region, credentials, and
    /// `AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL_KINESIS` and `AWS_ENDPOINT_URL`, which come from `lookup`.
    ///
    /// Endpoints on plain http (emulators) get a client without TLS, which saves loading the root certificates. If all
    /// of them are on this machine, region and credentials need not be set.
    pub async fn load(lookup: Lookup<'_>, caller: Caller) -> Clients {
        let endpoints = Endpoints::read(lookup);
        let shared = load_shared(lookup, |is_so| endpoints.all(is_so)).await;
        Clients::of(&shared, &endpoints, caller)
    }

    /// Makes clients for emulators at these endpoints, such as `http://127.0.0.1:4567`, whatever the environment says.
    pub fn for_emulators(dynamodb_endpoint: &str, kinesis_endpoint: &str) -> Clients {
        let shared = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static(EMULATOR_REGION))
            .credentials_provider(SharedCredentialsProvider::new(emulator_credentials()))
            .build();
        let endpoints = Endpoints {
            dynamodb: Some(dynamodb_endpoint.to_owned()),
            kinesis: Some(kinesis_endpoint.to_owned()),
        };
        Clients::of(&shared, &endpoints, Caller::Operator)
    }

    fn of(shared: &SdkConfig, endpoints: &Endpoints, caller: Caller) -> Clients {
        let timeouts = timeouts_of(caller);
        // The flows retry themselves: they know the time that is left, which records depend on which, and they count
        // what was throttled. A retry below them would spend their time unseen, and would make a conditional write
        // whose answer was lost fail its own condition behind their back. So: one attempt.
        let retries = RetryConfig::disabled();
        // It guards against a connection that stays open and gives nothing; the attempt timeout above is shorter than
        // its grace period, so it would only measure.
        let stalled_streams = StalledStreamProtectionConfig::disabled();

        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(shared)
            .timeout_config(timeouts.clone())
            .retry_config(retries.clone())
            .stalled_stream_protection(stalled_streams.clone());
        if let Some(endpoint) = &endpoints.dynamodb {
            dynamodb = dynamodb.endpoint_url(endpoint);
            if is_plain_http(endpoint) {
                dynamodb = dynamodb.http_client(plain_http_client());
            }
        }
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(shared)
            .timeout_config(timeouts)
            .retry_config(retries)
            .stalled_stream_protection(stalled_streams);
        if let Some(endpoint) = &endpoints.kinesis {
            kinesis = kinesis.endpoint_url(endpoint);
            if is_plain_http(endpoint) {
                kinesis = kinesis.http_client(plain_http_client());
            }
        }
        Clients {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
        }
    }
}

/// Where the services are that only an operator's command calls, if the environment says so; else their names tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreEndpoints {
    /// SQS.
    pub sqs: Option<String>,
    /// S3.
    pub s3: Option<String>,
}

/// Makes what calls SQS and S3, from the environment as [`Clients::load`] does, with `AWS_ENDPOINT_URL_SQS`,
/// `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL`.
///
/// # Errors
/// The HTTP client can't be made.
pub async fn load_stores(lookup: Lookup<'_>) -> Result<(SignedHttp, StoreEndpoints), SignedHttpError> {
    let endpoints = StoreEndpoints {
        sqs: endpoint_of(lookup, "AWS_ENDPOINT_URL_SQS"),
        s3: endpoint_of(lookup, "AWS_ENDPOINT_URL_S3"),
    };
    let all = |is_so: fn(&str) -> bool| {
        let mut set = [&endpoints.sqs, &endpoints.s3].into_iter().flatten().peekable();
        set.peek().is_some() && set.all(|endpoint| is_so(endpoint))
    };
    let shared = load_shared(lookup, all).await;
    Ok((SignedHttp::new(&shared)?, endpoints))
}

/// Region and credentials. `all` tells whether every endpoint that is called is of a kind.
async fn load_shared(lookup: Lookup<'_>, all: impl Fn(fn(&str) -> bool) -> bool) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if all(is_plain_http) {
        loader = loader.http_client(plain_http_client());
    }
    if all(is_on_this_machine) {
        let is_set = |name| lookup(name).is_some_and(|value| !value.is_empty());
        if !is_set("AWS_ACCESS_KEY_ID") && !is_set("AWS_PROFILE") {
            // Else the SDK would ask the instance metadata service, and fail after seconds.
            loader = loader.credentials_provider(emulator_credentials());
        }
        if !is_set("AWS_REGION") && !is_set("AWS_DEFAULT_REGION") {
            loader = loader.region(Region::from_static(EMULATOR_REGION));
        }
    }
    loader.load().await
}

/// A service's endpoint: its own, or the common one, unless they are to be ignored.
fn endpoint_of(lookup: Lookup<'_>, name: &str) -> Option<String> {
    let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
    if get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    get(name).or_else(|| get("AWS_ENDPOINT_URL"))
}

/// Where the services are, if the environment says so; else the SDK knows.
#[derive(Debug, PartialEq, Eq)]
struct Endpoints {
    dynamodb: Option<String>,
    kinesis: Option<String>,
}

impl Endpoints {
    fn read(lookup: Lookup<'_>) -> Endpoints {
        Endpoints {
            dynamodb: endpoint_of(lookup, "AWS_ENDPOINT_URL_DYNAMODB"),
            kinesis: endpoint_of(lookup, "AWS_ENDPOINT_URL_KINESIS"),
        }
    }

    /// Whether every service has an endpoint that is so.
    fn all(&self, is_so: fn(&str) -> bool) -> bool {
        [&self.dynamodb, &self.kinesis]
            .into_iter()
            .all(|endpoint| endpoint.as_deref().is_some_and(is_so))
    }
}

fn is_plain_http(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| url.scheme() == "http")
}

fn is_on_this_machine(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

fn plain_http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

fn emulator_credentials() -> Credentials {
    Credentials::new(EMULATOR_KEY, EMULATOR_KEY, None, None, "usher-emulator")
}

fn timeouts_of(caller: Caller) -> TimeoutConfig {
    let call_timeout = match caller {
        Caller::Function => FUNCTION_CALL_TIMEOUT,
        Caller::Operator => OPERATOR_CALL_TIMEOUT,
    };
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(call_timeout)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_own_endpoint_comes_before_the_common_one() {
        let common = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        let own = ("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:2");
        for (set, dynamodb, kinesis) in [
            (vec![], None, None),
            (vec![common], Some("http://127.0.0.1:1"), Some("http://127.0.0.1:1")),
            (vec![own], None, Some("http://127.0.0.1:2")),
            (
                vec![common, own],
                Some("http://127.0.0.1:1"),
                Some("http://127.0.0.1:2"),
            ),
            (
                vec![common, ("AWS_ENDPOINT_URL_KINESIS", "")],
                Some("http://127.0.0.1:1"),
                Some("http://127.0.0.1:1"),
            ),
            (
                vec![common, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")],
                None,
                None,
            ),
        ] {
            let lookup = |name: &str| {
                set.iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            let expected = Endpoints {
                dynamodb: dynamodb.map(str::to_owned),
                kinesis: kinesis.map(str::to_owned),
            };
            assert_eq!(Endpoints::read(&lookup), expected, "{set:?}");
        }
    }

    #[test]
    fn an_emulator_is_told_by_its_address() {
        for (endpoint, plain_http, on_this_machine) in [
            ("http://127.0.0.1:4567", true, true),
            ("http://localhost:4567/", true, true),
            ("http://[::1]:4567", true, true),
            ("https://localhost:4567", false, true),
            ("http://emulator:4567", true, false),
            ("https://kinesis.eu-west-1.amazonaws.com", false, false),
            ("localhost:4567", false, false),
        ] {
            assert_eq!(is_plain_http(endpoint), plain_http, "{endpoint}");
            assert_eq!(is_on_this_machine(endpoint), on_this_machine, "{endpoint}");
        }
    }

    #[tokio::test]
    async fn clients_make_one_attempt_with_short_timeouts() {
        let lookup = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| "http://127.0.0.1:9".to_owned());
        let clients = Clients::load(&lookup, Caller::Function).await;
        let config = clients.dynamodb.config();
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1));
        let timeouts = config.timeout_config().expect("they are set");
        assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT));
        assert_eq!(timeouts.operation_attempt_timeout(), Some(FUNCTION_CALL_TIMEOUT));
        assert_eq!(
            clients.kinesis.config().retry_config().map(RetryConfig::max_attempts),
            Some(1)
        );
    }
}
