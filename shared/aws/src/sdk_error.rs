//! Sorts the SDK's errors by what the caller does with them: try again, or not.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use usher_pipeline::ports::{BoxError, CallError};

/// HTTP statuses below 500 that are worth another try, whatever the service says: request timeout and too many requests.
const TRANSIENT_STATUSES: [u16; 2] = [408, 429];
/// The first HTTP status that says that the service is at fault.
const SERVER_ERROR_STATUS_MIN: u16 = 500;

/// Whether trying the call again may help. `transient_codes` are the service's own error codes of that kind.
///
/// What is not known is sorted by its HTTP status, as all services use them: 5xx is their fault and passes, 4xx is ours.
pub(crate) fn is_transient<E: ProvideErrorMetadata>(
    error: &SdkError<E, HttpResponse>,
    transient_codes: &[&str],
) -> bool {
    match error {
        // The request could not even be built: the same arguments will fail again.
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => {
            !failure.is_user()
                && !failure
                    .as_connector_error()
                    .is_some_and(|error| lacks_credentials(error))
        }
        SdkError::ServiceError(service) => {
            let is_transient_code = service.err().code().is_some_and(|code| transient_codes.contains(&code));
            is_transient_code || is_transient_status(service.raw().status().as_u16())
        }
        // The answer can't be read. After a success status the call took effect, and asking again tells.
        SdkError::ResponseError(response) => {
            let status = response.raw().status();
            status.is_success() || is_transient_status(status.as_u16())
        }
        // A timeout, and kinds that the SDK may add.
        _ => true,
    }
}

/// Whether the call failed because nobody said who is calling. They won't turn up by themselves.
fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    let is_so = matches!(error.downcast_ref(), Some(CredentialsError::CredentialsNotLoaded(_)));
    is_so || error.source().is_some_and(lacks_credentials)
}

fn is_transient_status(status: u16) -> bool {
    status >= SERVER_ERROR_STATUS_MIN || TRANSIENT_STATUSES.contains(&status)
}

/// The port's error for a failed call.
pub(crate) fn call_error(is_transient: bool, call: String, source: impl Into<BoxError>) -> CallError {
    let source = source.into();
    if is_transient {
        CallError::Retry { call, source }
    } else {
        CallError::Refused { call, source }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_sdk_dynamodb::error::{ConnectorError, ErrorMetadata};
    use aws_smithy_types::body::SdkBody;

    use super::*;

    /// Each kind of error that is not the service's own words, and whether to try again.
    pub(crate) fn errors_of_the_transport<E>() -> Vec<(&'static str, SdkError<E, HttpResponse>, bool)> {
        vec![
            ("can't be built", SdkError::construction_failure("missing field"), false),
            ("timed out", SdkError::timeout_error("too slow"), true),
            (
                "connection lost",
                SdkError::dispatch_failure(ConnectorError::io("reset".into())),
                true,
            ),
            (
                "connection timed out",
                SdkError::dispatch_failure(ConnectorError::timeout("slow".into())),
                true,
            ),
            (
                "wrong request",
                SdkError::dispatch_failure(ConnectorError::user("bad URI".into())),
                false,
            ),
            (
                "anything else",
                SdkError::dispatch_failure(ConnectorError::other("?".into(), None)),
                true,
            ),
            (
                "unreadable success",
                SdkError::response_error("cut off", response(200)),
                true,
            ),
            ("unreadable 503", SdkError::response_error("HTML", response(503)), true),
            ("unreadable 404", SdkError::response_error("HTML", response(404)), false),
        ]
    }

    /// An error in the service's own words.
    pub(crate) fn service_error<E>(
        generic: fn(ErrorMetadata) -> E,
        code: &str,
        status: u16,
    ) -> SdkError<E, HttpResponse> {
        SdkError::service_error(generic(ErrorMetadata::builder().code(code).build()), response(status))
    }

    fn response(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty())
    }

    #[test]
    fn a_retried_and_a_refused_call_keep_their_source() {
        let retried = call_error(true, "kinesis:PutRecords on triggers".to_owned(), "slow");
        assert_eq!(retried.to_string(), "kinesis:PutRecords on triggers failed for now");
        let refused = call_error(false, "kinesis:PutRecords on triggers".to_owned(), "no such stream");
        assert_eq!(refused.to_string(), "kinesis:PutRecords on triggers was refused");
    }
}
