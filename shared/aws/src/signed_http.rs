//! Signed HTTP calls to the services that only an operator's command needs, without an SDK crate for each.
//!
//! The SDK's crates for S3 and SQS take 99 s and 21 s of a core to build, on every fresh machine, for six small calls. What
//! is delicate about a call, the signature, is the SDK's own (`aws-sigv4`), and so are region and credentials.

use std::time::{Duration, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use usher_pipeline::ports::{BoxError, CallError, WallClock};

use crate::clients::{CONNECT_TIMEOUT, OPERATOR_CALL_TIMEOUT};
use crate::runtime::SystemClock;
use crate::sdk_error;

/// Bytes of an answer that are read at most. A failed batch is 6 MB, its quotes escaped in JSON.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Error codes after which another try may help, whatever the HTTP status.
const TRANSIENT_CODES: [&str; 8] = [
    "ExpiredToken",
    "InternalError",
    "OverLimit",
    "RequestThrottled",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottlingException",
];
/// HTTP statuses that another try may help with: request timeout, too many requests.
const TRANSIENT_STATUSES: [u16; 2] = [408, 429];
/// The first HTTP status that says that the service is at fault.
const SERVER_ERROR_STATUS_MIN: u16 = 500;

/// Makes signed calls. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct SignedHttp {
    http: reqwest::Client,
    credentials: Option<SharedCredentialsProvider>,
    region: Option<String>,
}

/// Why calls can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SignedHttpError {
    /// The HTTP client can't be made, for example because there are no root certificates.
    #[error("the HTTP client can't be made")]
    Client(#[source] reqwest::Error),
}

/// A call.
pub(crate) struct SignedCall<'a> {
    /// What errors name, such as `sqs:ReceiveMessage on URL`.
    pub name: &'a str,
    /// The service's name in the signature.
    pub service: &'static str,
    pub region: &'a str,
    pub method: reqwest::Method,
    /// With its path and query already percent-encoded.
    pub url: &'a str,
    pub headers: &'a [(&'static str, &'a str)],
    pub body: Vec<u8>,
}

/// What a service said was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} (HTTP status {status}): {message}")]
pub(crate) struct ServiceError {
    pub status: u16,
    pub code: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(&'static str);

impl SignedHttp {
    /// From what the SDK found.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub(crate) fn new(shared: &SdkConfig) -> Result<SignedHttp, SignedHttpError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(OPERATOR_CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(SignedHttpError::Client)?;
        Ok(SignedHttp {
            http,
            credentials: shared.credentials_provider(),
            region: shared.region().map(|region| region.as_ref().to_owned()),
        })
    }

    /// The region that is set.
    pub(crate) fn region(&self, call: &str) -> Result<&str, CallError> {
        let region = self.region.as_deref();
        region.ok_or_else(|| {
            refused(
                call,
                Unusable("no region is set; set AWS_REGION, or a region in the profile"),
            )
        })
    }

    /// Makes a call once; gives the body of a good answer. `read_error` finds the code and the message in a bad one.
    pub(crate) async fn call(
        &self,
        call: SignedCall<'_>,
        read_error: fn(&[u8]) -> Option<(String, String)>,
    ) -> Result<Vec<u8>, CallError> {
        let signature = self.signature(&call, SystemClock.now().epoch_ms()).await?;
        let mut request = self.http.request(call.method.clone(), call.url);
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        for (name, value) in signature {
            request = request.header(name, value);
        }
        let failed = |error: reqwest::Error| {
            let may_pass = !error.is_builder();
            sdk_error::call_error(may_pass, call.name.to_owned(), error)
        };
        let mut response = request.body(call.body).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(refused(
                    call.name,
                    Unusable("the answer has over 64 MiB, more than any failed batch"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        if response.status().is_success() {
            return Ok(body);
        }
        let (code, message) = read_error(&body).unwrap_or_else(|| ("no code".to_owned(), String::new()));
        let is_transient = TRANSIENT_CODES.contains(&code.as_str())
            || TRANSIENT_STATUSES.contains(&status)
            || status >= SERVER_ERROR_STATUS_MIN;
        let error = ServiceError { status, code, message };
        Err(sdk_error::call_error(is_transient, call.name.to_owned(), error))
    }

    /// The headers that sign a call.
    async fn signature(&self, call: &SignedCall<'_>, now_ms: i64) -> Result<Vec<(String, String)>, CallError> {
        let provider = self.credentials.as_ref();
        let provider = provider.ok_or_else(|| refused(call.name, Unusable("no credentials are set")))?;
        let credentials = provider.provide_credentials().await.map_err(|error| {
            let may_pass = may_pass(&error);
            sdk_error::call_error(may_pass, call.name.to_owned(), error)
        })?;
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        if call.service == "s3" {
            // S3's own variant: paths are encoded once and taken as they are, and the body's hash is a header.
            // https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or_default());
        let unsigned = |error: BoxError| sdk_error::call_error(false, call.name.to_owned(), error);
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(call.region)
            .name(call.service)
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| unsigned(error.into()))?
            .into();
        let request = SignableRequest::new(
            call.method.as_str(),
            call.url,
            call.headers.iter().copied(),
            SignableBody::Bytes(&call.body),
        );
        let request = request.map_err(|error| unsigned(error.into()))?;
        let (instructions, _) = sign(request, &parameters)
            .map_err(|error| unsigned(error.into()))?
            .into_parts();
        let headers = instructions.headers();
        Ok(headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

/// Whether another try may help: credentials may come over the network. That there are none, or that they are set wrongly,
/// does not pass.
fn may_pass(error: &CredentialsError) -> bool {
    matches!(
        error,
        CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)
    )
}

fn refused(call: &str, why: impl Into<BoxError>) -> CallError {
    sdk_error::call_error(false, call.to_owned(), why)
}

/// What AWS's addresses in a region end with.
pub(crate) fn domain_of(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::Credentials;

    use super::*;

    #[test]
    fn credentials_that_did_not_come_may_come_and_others_do_not() {
        for (error, expected) in [
            (CredentialsError::provider_timed_out(Duration::from_secs(1)), true),
            (CredentialsError::provider_error("no connection"), true),
            (CredentialsError::not_loaded("none are set"), false),
            (CredentialsError::invalid_configuration("no such profile"), false),
        ] {
            assert_eq!(may_pass(&error), expected, "{error:?}");
        }
    }

    /// The same calls were signed by another SDK with the same key and time.
    #[tokio::test]
    async fn a_call_is_signed_as_other_sdks_sign_it() {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            Some("TOKEN".to_owned()),
            None,
            "test",
        );
        let shared = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let http = SignedHttp::new(&shared).expect("a client");
        let now_ms = 1_767_607_200_000; // 2026-01-05T10:00:00Z
        let s3 = |url| SignedCall {
            name: "s3:GetObject",
            service: "s3",
            region: "eu-west-1",
            method: reqwest::Method::GET,
            url,
            headers: &[],
            body: Vec::new(),
        };
        let list = s3("https://s3.eu-west-1.amazonaws.com/failed-batches?list-type=2&prefix=aws%2Flambda%2Fa%20b");
        let object = s3("https://s3.eu-west-1.amazonaws.com/failed-batches/aws/lambda/a%20b/%2B%3A.json");
        let sqs = SignedCall {
            name: "sqs:ReceiveMessage",
            service: "sqs",
            region: "eu-west-1",
            method: reqwest::Method::POST,
            url: "https://sqs.eu-west-1.amazonaws.com/",
            headers: &[
                ("content-type", "application/x-amz-json-1.0"),
                ("x-amz-target", "AmazonSQS.ReceiveMessage"),
            ],
            body: br#"{"QueueUrl":"q"}"#.to_vec(),
        };
        for (call, expected) in [
            (list, "01b51d6ec8f60a1dc3c8f9287e3cd78659386cf4fa30c1a7d3f0e632b6cbb283"),
            (
                object,
                "808eea92cd2a3b6852da9e2eefb08d5e89c864ad9a66a6b875fa2b8d065ef59d",
            ),
            (sqs, "8a7b2a1f504dd4234fa4a1594866d33f3ea3637c7d74f21b60c1815153cb4476"),
        ] {
            let headers = http.signature(&call, now_ms).await.expect("it can be signed");
            let authorization = headers.iter().find(|(name, _)| name == "authorization");
            let (_, value) = authorization.expect("it is signed");
            assert!(
                value.ends_with(&format!("Signature={expected}")),
                "{}: {value}",
                call.url
            );
        }
    }
}
