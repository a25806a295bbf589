//! An S3 folder that event source mappings put their failed batches into, as an operator's command reads it.

use aws_smithy_xml::decode::{Document, try_data};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use usher_pipeline::ports::CallError;

use crate::clients::StoreEndpoints;
use crate::sdk_error;
use crate::signed_http::{SignedCall, SignedHttp, domain_of};

const SCHEME: &str = "s3://";

/// The objects of a bucket whose keys begin with a prefix.
#[derive(Clone, Debug)]
pub struct BucketFolder {
    http: SignedHttp,
    endpoint: Option<String>,
    bucket: String,
    prefix: String,
}

/// Some keys of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys, in order.
    pub keys: Vec<String>,
    /// What asks for the next page, where there is one.
    pub next: Option<String>,
}

/// Why a text is no folder.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not s3://BUCKET or s3://BUCKET/PREFIX")]
pub struct BucketUriError(pub String);

impl BucketFolder {
    /// The folder with this URI: `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// It is no such URI.
    pub fn new(http: SignedHttp, endpoints: &StoreEndpoints, uri: &str) -> Result<BucketFolder, BucketUriError> {
        let wrong = || BucketUriError(uri.to_owned());
        let rest = uri.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_name) {
            return Err(wrong());
        }
        Ok(BucketFolder {
            http,
            endpoint: endpoints.s3.clone(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    /// The URI of an object.
    pub fn uri_of(&self, key: &str) -> String {
        format!("{SCHEME}{}/{key}", self.bucket)
    }

    /// A page of the folder's keys: the first, or what `next` of the page before asks for.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list(&self, next: Option<&str>) -> Result<KeyPage, CallError> {
        const OPERATION: &str = "ListObjectsV2";
        let mut query = String::from("?");
        if let Some(token) = next {
            query.push_str(&format!("continuation-token={}&", encoded(token, false)));
        }
        query.push_str(&format!("list-type=2&prefix={}", encoded(&self.prefix, false)));
        let body = self.call(OPERATION, reqwest::Method::GET, "", &query).await?;
        page_of(&body)
            .ok_or_else(|| sdk_error::call_error(true, self.name(OPERATION, ""), "the answer is not a list of objects"))
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// The call failed.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, CallError> {
        self.call("GetObject", reqwest::Method::GET, key, "").await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The call failed.
    pub async fn delete(&self, key: &str) -> Result<(), CallError> {
        self.call("DeleteObject", reqwest::Method::DELETE, key, "")
            .await
            .map(drop)
    }

    fn name(&self, operation: &str, key: &str) -> String {
        format!("s3:{operation} on {}", self.uri_of(key))
    }

    async fn call(
        &self,
        operation: &str,
        method: reqwest::Method,
        key: &str,
        query: &str,
    ) -> Result<Vec<u8>, CallError> {
        let name = self.name(operation, key);
        let region = self.http.region(&name)?;
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://s3.{region}.{}", domain_of(region)),
        };
        // The path style works for every name of a bucket, with TLS too.
        let path = if key.is_empty() {
            String::new()
        } else {
            format!("/{}", encoded(key, true))
        };
        let url = format!("{endpoint}/{}{path}{query}", self.bucket);
        let call = SignedCall {
            name: &name,
            service: "s3",
            region,
            method,
            url: &url,
            headers: &[],
            body: Vec::new(),
        };
        self.http.call(call, error_of).await
    }
}

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same within a path, whose parts slashes divide.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Percent-encodes as the signature wants it.
fn encoded(text: &str, keep_slashes: bool) -> String {
    let reserved = if keep_slashes { RESERVED_IN_PATH } else { RESERVED };
    utf8_percent_encode(text, reserved).to_string()
}

/// The keys in `<ListBucketResult><Contents><Key>…`; nothing where it is something else.
fn page_of(body: &[u8]) -> Option<KeyPage> {
    let text = std::str::from_utf8(body).ok()?;
    let mut document = Document::new(text);
    let mut root = document.root_element().ok()?;
    if !root.start_el().matches("ListBucketResult") {
        return None;
    }
    let mut page = KeyPage::default();
    while let Some(mut tag) = root.next_tag() {
        match tag.start_el().local() {
            "NextContinuationToken" => page.next = Some(try_data(&mut tag).ok()?.into_owned()),
            "Contents" => {
                while let Some(mut member) = tag.next_tag() {
                    if member.start_el().matches("Key") {
                        page.keys.push(try_data(&mut member).ok()?.into_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Some(page)
}

/// `<Error><Code>NoSuchBucket</Code><Message>…`.
fn error_of(body: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(body).ok()?;
    let mut document = Document::new(text);
    let mut root = document.root_element().ok()?;
    let (mut code, mut message) = (None, String::new());
    while let Some(mut tag) = root.next_tag() {
        match tag.start_el().local() {
            "Code" => code = Some(try_data(&mut tag).ok()?.into_owned()),
            "Message" => message = try_data(&mut tag).ok()?.into_owned(),
            _ => {}
        }
    }
    Some((code?, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::load_stores;
    use crate::test_server::{Reply, TestServer};

    async fn folder_at(server: &TestServer, uri: &str) -> BucketFolder {
        let url = server.url();
        let lookup = |name: &str| (name == "AWS_ENDPOINT_URL_S3").then(|| url.clone());
        let (http, endpoints) = load_stores(&lookup).await.expect("a client");
        BucketFolder::new(http, &endpoints, uri).expect("a URI")
    }

    #[tokio::test]
    async fn a_folder_is_listed_in_pages_and_its_objects_are_read() {
        let server = TestServer::start(|request| {
            let body = if request.line.contains("continuation-token=more%2F%3D") {
                "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Contents><Key>aws/c</Key></Contents></ListBucketResult>"
            } else if request.line.contains("list-type=2") {
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult><Name>b</Name><Contents><Key>aws/a&amp;b</Key><Size>1</Size></Contents><NextContinuationToken>more/=</NextContinuationToken></ListBucketResult>"
            } else {
                "{}"
            };
            Reply::json(200, body)
        })
        .await;
        let folder = folder_at(&server, "s3://failed-batches/aws/").await;
        let first = folder.list(None).await.expect("it answered");
        assert_eq!(
            (first.keys.as_slice(), first.next.as_deref()),
            (&["aws/a&b".to_owned()][..], Some("more/="))
        );
        assert!(
            server
                .last_request()
                .line
                .starts_with("GET /failed-batches?list-type=2&prefix=aws%2F ")
        );
        let second = folder.list(first.next.as_deref()).await.expect("it answered");
        assert_eq!((second.keys.as_slice(), second.next), (&["aws/c".to_owned()][..], None));
        assert_eq!(folder.get("aws/a&b").await.expect("it answered"), b"{}");
        assert!(server.last_request().line.starts_with("GET /failed-batches/aws/a%26b "));
        folder.delete("aws/c").await.expect("it answered");
        assert!(server.last_request().line.starts_with("DELETE /failed-batches/aws/c "));
    }

    #[tokio::test]
    async fn an_error_is_told_in_the_services_words() {
        let server = TestServer::start(|_| {
            Reply::json(
                404,
                "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>",
            )
        })
        .await;
        let folder = folder_at(&server, "s3://nobody").await;
        let error = folder.list(None).await.expect_err("no bucket");
        assert_eq!(error.to_string(), "s3:ListObjectsV2 on s3://nobody/ was refused");
        let source = std::error::Error::source(&error).expect("it has one").to_string();
        assert_eq!(
            source,
            "NoSuchBucket (HTTP status 404): The specified bucket does not exist"
        );
    }

    #[tokio::test]
    async fn what_is_no_folder_is_refused() {
        let (http, endpoints) = load_stores(&|_| None).await.expect("a client");
        for wrong in ["failed-batches", "s3://", "s3:///a", "https://b/a", "s3://a?b/c"] {
            assert!(BucketFolder::new(http.clone(), &endpoints, wrong).is_err(), "{wrong}");
        }
    }
}
