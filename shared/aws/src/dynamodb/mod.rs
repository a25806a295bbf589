//! The DynamoDB tables.

mod decisions;
mod due;
mod item;
mod models;
mod profiles;
mod trends;

pub use decisions::{DecisionPage, DecisionPages, DynamoDecisionTable, RecordedDecision};
pub use due::{DUE_INDEX, DynamoDueIndex};
pub use item::profile_item_bytes;
pub use models::DynamoModelTable;
pub use profiles::{DynamoProfileTable, ProfilePage, ProfilePages, UnreadableProfile};
pub use trends::DynamoTrendTable;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use usher_pipeline::ports::CallError;

use crate::sdk_error;

/// Error codes after which another try may help. All others say that the request, the table or the permissions are
/// wrong.
const TRANSIENT_CODES: [&str; 12] = [
    "ExpiredTokenException", // new credentials come before the next try
    "InternalServerError",
    "InternalServerErrorException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
];

/// Whether trying a failed call again may help.
fn is_transient<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    sdk_error::is_transient(error, &TRANSIENT_CODES)
}

/// Whether another try may help after this error code.
fn is_transient_code(code: &str) -> bool {
    TRANSIENT_CODES.contains(&code)
}

/// The port's error for a failed `operation` on `table`.
fn call_error<E>(operation: &str, table: &str, error: SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    sdk_error::call_error(is_transient(&error), call_name(operation, table), error)
}

/// Such as `dynamodb:PutItem on profiles`.
fn call_name(operation: &str, table: &str) -> String {
    format!("dynamodb:{operation} on {table}")
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::operation::put_item::PutItemError;

    use super::*;
    use crate::sdk_error::tests::{errors_of_the_transport, service_error};

    #[test]
    fn errors_are_sorted_by_what_the_caller_does_with_them() {
        for (code, status, is_worth_a_try) in [
            ("ProvisionedThroughputExceededException", 400, true),
            ("ThrottlingException", 400, true),
            ("RequestLimitExceeded", 400, true),
            ("LimitExceededException", 400, true),
            ("TransactionConflictException", 400, true),
            ("ReplicatedWriteConflictException", 400, true),
            ("ExpiredTokenException", 400, true),
            ("InternalServerError", 500, true),
            ("ServiceUnavailable", 503, true),
            ("SomethingNew", 500, true),
            ("SomethingNew", 400, false),
            ("ResourceNotFoundException", 400, false),
            ("AccessDeniedException", 400, false),
            ("ValidationException", 400, false),
            ("ItemCollectionSizeLimitExceededException", 400, false),
            ("ConditionalCheckFailedException", 400, false),
            ("UnrecognizedClientException", 400, false),
        ] {
            let error = service_error(PutItemError::generic, code, status);
            assert_eq!(is_transient(&error), is_worth_a_try, "{code} {status}");
        }
        for (name, error, is_worth_a_try) in errors_of_the_transport::<PutItemError>() {
            assert_eq!(is_transient(&error), is_worth_a_try, "{name}");
        }
    }
}
