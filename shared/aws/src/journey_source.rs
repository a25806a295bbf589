//! Where the journey is that a function runs: a file, AWS AppConfig, or a parameter of the Systems Manager.
//!
//! The latter two are asked through Lambda extensions, which run beside the function, keep what they fetched for a while and
//! answer plain HTTP on the function's own machine:
//! - <https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-integration-lambda-extensions.html>
//! - <https://docs.aws.amazon.com/systems-manager/latest/userguide/ps-integration-lambda-extensions.html>
//!
//! A parameter holds 4 KB, or 8 KB in the advanced tier, and a profile of AppConfig 2 MB; a journey may have
//! [`JOURNEY_BYTES_MAX`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use url::Url;
use usher_domain::limits::JOURNEY_BYTES_MAX;
use usher_pipeline::journey_source::{JourneySource, JourneySourceError, JourneyText};
use usher_pipeline::ports::BoxError;

use crate::config::{JourneyLocation, SessionToken};

/// How long an extension may take to answer. It asks its service where it has no answer yet.
const EXTENSION_TIMEOUT: Duration = Duration::from_secs(5);
/// The header that the extension for parameters knows the function by.
const TOKEN_HEADER: &str = "X-Aws-Parameters-Secrets-Token";
/// Bytes that an extension's answer may have: the journey, which JSON may write in six times as many (`\u000a`), and some
/// around it.
const ANSWER_BYTES_MAX: usize = 6 * JOURNEY_BYTES_MAX + 64 * 1024;
/// Bytes of a bad answer that are told.
const TOLD_BYTES_MAX: usize = 512;

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The HTTP client can't be made.
    #[error("the HTTP client for the journey's extension can't be made")]
    Client(#[source] reqwest::Error),
    /// A name that no address can hold.
    #[error("no address can be made for {name}")]
    Address {
        /// The source.
        name: String,
    },
}

/// The source of a journey that is there.
///
/// # Errors
/// The HTTP client can't be made.
pub fn journey_source(location: JourneyLocation) -> Result<Arc<dyn JourneySource>, SourceError> {
    Ok(match location {
        JourneyLocation::File(path) => Arc::new(JourneyFile {
            name: path.display().to_string(),
            path,
        }),
        JourneyLocation::AppConfig {
            application,
            environment,
            profile,
            port,
        } => {
            let name = format!("appconfig:{application}/{environment}/{profile}");
            let segments = [
                "applications",
                &application,
                "environments",
                &environment,
                "configurations",
                &profile,
            ];
            Arc::new(Extension {
                url: local_address(port, &segments).ok_or_else(|| SourceError::Address { name: name.clone() })?,
                name,
                http: client()?,
                service: Service::AppConfig,
            })
        }
        JourneyLocation::Ssm {
            parameter,
            port,
            session_token,
        } => {
            let name = format!("ssm:{parameter}");
            let mut url = local_address(port, &["systemsmanager", "parameters", "get"])
                .ok_or_else(|| SourceError::Address { name: name.clone() })?;
            url.query_pairs_mut()
                .append_pair("name", &parameter)
                .append_pair("withDecryption", "true");
            Arc::new(Extension {
                url,
                name,
                http: client()?,
                service: Service::Parameters(session_token),
            })
        }
    })
}

fn local_address(port: u16, segments: &[&str]) -> Option<Url> {
    let mut url = Url::parse(&format!("http://localhost:{port}/")).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
    Some(url)
}

fn client() -> Result<reqwest::Client, SourceError> {
    // The extension is on this machine, whatever proxy the environment names.
    reqwest::Client::builder()
        .no_proxy()
        .timeout(EXTENSION_TIMEOUT)
        .redirect(Policy::none())
        .build()
        .map_err(SourceError::Client)
}

/// A journey in a file.
#[derive(Debug)]
struct JourneyFile {
    name: String,
    path: PathBuf,
}

impl JourneySource for JourneyFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn answers_at_start(&self) -> bool {
        true
    }

    fn read(&self) -> JourneyText<'_> {
        Box::pin(async {
            let unreadable = |error: std::io::Error| {
                let advice = "set USHER_JOURNEY_PATH to a readable file, or attach the journey's layer";
                failed(advice.to_owned(), false, Some(error.into()))
            };
            let file = tokio::fs::File::open(&self.path).await.map_err(unreadable)?;
            let mut bytes = Vec::new();
            // One more, so that it is found out that there is more.
            let mut front = file.take(JOURNEY_BYTES_MAX as u64 + 1);
            front.read_to_end(&mut bytes).await.map_err(unreadable)?;
            text_of(bytes)
        })
    }
}

/// A journey behind a Lambda extension.
#[derive(Debug)]
struct Extension {
    name: String,
    url: Url,
    http: reqwest::Client,
    service: Service,
}

#[derive(Debug)]
enum Service {
    AppConfig,
    Parameters(SessionToken),
}

/// What the extension for parameters answers: what `ssm:GetParameter` does.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameter {
    parameter: Parameter,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: String,
}

impl JourneySource for Extension {
    fn name(&self) -> &str {
        &self.name
    }

    /// The extension for parameters "can only be called during the INVOKE phase of the Lambda operation and not during the
    /// INIT phase", says its page (linked above). AppConfig's says nothing of it, and gets the same care.
    fn answers_at_start(&self) -> bool {
        false
    }

    fn read(&self) -> JourneyText<'_> {
        Box::pin(async {
            let (status, body) = self.ask().await?;
            if status != StatusCode::OK {
                return Err(self.refused(status, &body));
            }
            match &self.service {
                Service::AppConfig => text_of(body),
                Service::Parameters(_) => {
                    let answer: GetParameter = serde_json::from_slice(&body).map_err(|error| {
                        let message =
                            "the extension's answer is not that of ssm:GetParameter; is the right extension attached?";
                        failed(message.to_owned(), false, Some(error.into()))
                    })?;
                    text_of(answer.parameter.value.into_bytes())
                }
            }
        })
    }
}

impl Extension {
    async fn ask(&self) -> Result<(StatusCode, Vec<u8>), JourneySourceError> {
        let silent = |error: reqwest::Error| {
            let layer = match self.service {
                Service::AppConfig => "AWS AppConfig",
                Service::Parameters(_) => "AWS Parameters and Secrets",
            };
            let message = format!(
                "no answer from {}; attach the layer with the {layer} Lambda extension",
                self.place()
            );
            failed(message, true, Some(error.without_url().into()))
        };
        let mut request = self.http.get(self.url.clone());
        if let Service::Parameters(token) = &self.service {
            request = request.header(TOKEN_HEADER, token.expose());
        }
        let mut response = request.send().await.map_err(silent)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    /// What to say of an answer that is not the journey.
    fn refused(&self, status: StatusCode, body: &[u8]) -> JourneySourceError {
        let advice = match self.service {
            Service::AppConfig => {
                "check that the application, environment and profile exist, that a version is deployed, and that the role allows \
                 appconfig:StartConfigurationSession and appconfig:GetLatestConfiguration on it"
            }
            Service::Parameters(_) => {
                "check that the parameter exists, and that the role allows ssm:GetParameter on it, and kms:Decrypt on its key if \
                 it has one of its own"
            }
        };
        let front = &body[..body.len().min(TOLD_BYTES_MAX)];
        let said = String::from_utf8_lossy(front);
        let message = format!("{} answers {status}: {}; {advice}", self.place(), said.trim());
        // In the INIT phase and for a moment after it, the extension for parameters answers 400, `not ready to serve traffic`.
        let is_starting = said.contains("not ready");
        failed(message, status.is_server_error() || is_starting, None)
    }

    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

fn text_of(bytes: Vec<u8>) -> Result<String, JourneySourceError> {
    if bytes.len() > JOURNEY_BYTES_MAX {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let message = "it is not UTF-8 text; write it as a plain YAML file";
        failed(message.to_owned(), false, Some(error.utf8_error().into()))
    })
}

fn too_large() -> JourneySourceError {
    let message = format!("it has over {JOURNEY_BYTES_MAX} bytes, the most that a journey may have");
    failed(message, false, None)
}

fn failed(message: String, may_pass: bool, source: Option<BoxError>) -> JourneySourceError {
    JourneySourceError {
        message,
        may_pass,
        source,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use usher_pipeline::journey_source::JourneyKeeper;
    use usher_pipeline::retry::chain;

    use super::*;
    use crate::test_server::{Reply, TestServer};

    fn port_of(server: &TestServer) -> u16 {
        Url::parse(&server.url()).expect("a URL").port().expect("it has one")
    }

    fn appconfig(port: u16) -> Arc<dyn JourneySource> {
        journey_source(JourneyLocation::AppConfig {
            application: "my shop".to_owned(),
            environment: "prod".to_owned(),
            profile: "a1b2c3d".to_owned(),
            port,
        })
        .expect("a client")
    }

    fn ssm(port: u16) -> Arc<dyn JourneySource> {
        journey_source(JourneyLocation::Ssm {
            parameter: "/usher/journey".to_owned(),
            port,
            session_token: "t0ken".into(),
        })
        .expect("a client")
    }

    /// The path is that of
    /// <https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-integration-lambda-extensions-retrieving-data.html>:
    /// `http://localhost:2772/applications/APP/environments/ENV/configurations/CONFIG`. The body is the configuration itself.
    #[tokio::test]
    async fn appconfig_is_asked_through_its_extension() {
        let server = TestServer::start(|_| Reply::json(200, "journey: one\n")).await;
        let source = appconfig(port_of(&server));
        assert_eq!(source.read().await.expect("a journey"), "journey: one\n");
        assert_eq!(
            server.last_request().line,
            "GET /applications/my%20shop/environments/prod/configurations/a1b2c3d HTTP/1.1"
        );
        assert_eq!(source.name(), "appconfig:my shop/prod/a1b2c3d");
    }

    /// Address, header and answer are those of
    /// <https://docs.aws.amazon.com/systems-manager/latest/userguide/ps-integration-lambda-extensions.html>: the name is
    /// percent-encoded, the token is the function's AWS_SESSION_TOKEN, and the answer is that of
    /// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>.
    #[tokio::test]
    async fn a_parameter_is_asked_for_through_its_extension() {
        let answer = r#"{"Parameter":{"ARN":"arn:aws:ssm:eu-west-1:1:parameter/usher/journey","DataType":"text","LastModifiedDate":"2026-01-05T10:00:00Z","Name":"/usher/journey","Selector":null,"SourceResult":null,"Type":"String","Value":"journey: one\n","Version":3},"ResultMetadata":{}}"#;
        let server = TestServer::start(move |_| Reply::json(200, answer)).await;
        let source = ssm(port_of(&server));
        assert_eq!(source.read().await.expect("a journey"), "journey: one\n");
        let request = server.last_request();
        assert_eq!(
            request.line,
            "GET /systemsmanager/parameters/get?name=%2Fusher%2Fjourney&withDecryption=true HTTP/1.1"
        );
        assert_eq!(request.headers["x-aws-parameters-secrets-token"], "t0ken");
        assert!(!format!("{source:?}").contains("t0ken"));
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_with_what_to_do() {
        let large = "x".repeat(JOURNEY_BYTES_MAX + 1);
        let parameter = |value: &str| serde_json::json!({"Parameter": {"Value": value}}).to_string();
        for (of_ssm, status, body, may_pass, part) in [
            (false, 404, "{}".to_owned(), false, "a version is deployed"),
            (false, 502, String::new(), true, "502"),
            (false, 301, String::new(), false, "301"),
            (false, 200, large.clone(), false, "over 1048576 bytes"),
            (true, 200, parameter(&large), false, "over 1048576 bytes"),
            (true, 200, "journey: one".to_owned(), false, "right extension"),
            (true, 401, "no token".to_owned(), false, "no token; check"),
            (
                true,
                400,
                "not ready to serve traffic, please wait".to_owned(),
                true,
                "not ready",
            ),
            (true, 400, "x".repeat(10_000), false, "ssm:GetParameter"),
        ] {
            let answer = body.clone();
            let server = TestServer::start(move |_| Reply::json(status, answer.clone())).await;
            let port = port_of(&server);
            let source = if of_ssm { ssm(port) } else { appconfig(port) };
            let error = source.read().await.expect_err("it is wrong");
            let told = chain(&error);
            assert!(
                told.contains(part) && told.len() < 1_000,
                "{part} is missing in: {told}"
            );
            assert_eq!(error.may_pass, may_pass, "{told}");
        }
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = nobody.local_addr().expect("bound").port();
        drop(nobody);
        for (source, layer) in [(appconfig(port), "AppConfig"), (ssm(port), "Parameters and Secrets")] {
            let error = source.read().await.expect_err("nobody answers");
            let told = chain(&error);
            assert!(
                error.may_pass && told.contains("attach the layer") && told.contains(layer),
                "{told}"
            );
            assert!(!told.contains("t0ken"), "{told}");
        }
    }

    /// As an AppConfig deployment goes: a good version, a bad one, a good one.
    #[tokio::test]
    async fn a_function_follows_its_extension_and_refuses_what_is_wrong() {
        let text = Arc::new(std::sync::Mutex::new("journey: one".to_owned()));
        let shown = Arc::clone(&text);
        let server = TestServer::start(move |_| Reply::json(200, shown.lock().expect("no panics").clone())).await;
        let keeper = JourneyKeeper::new(appconfig(port_of(&server)), Duration::ZERO);
        keeper.start().await.expect("it waits for an invocation");
        assert_eq!(server.requests(), 0);
        for (deployed, running, refused) in [
            ("journey: one", "one", 0),
            ("journey: two\nstpes: []", "one", 1),
            ("journey: two", "two", 0),
        ] {
            *text.lock().expect("no panics") = deployed.to_owned();
            let mut news;
            let mut name;
            let began = Instant::now();
            loop {
                let deadline = Instant::now() + EXTENSION_TIMEOUT;
                let journey;
                (journey, news) = keeper.for_invocation(deadline).await.expect("a journey");
                name = journey.name.clone();
                if (name.as_str(), news.refused) == (running, refused) || began.elapsed() > EXTENSION_TIMEOUT {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!((name.as_str(), news.refused), (running, refused), "{deployed}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes() {
        let path = std::env::temp_dir().join(format!("usher-journey-source-{}.yaml", std::process::id()));
        let source = journey_source(JourneyLocation::File(path.clone())).expect("no client");
        let missing = chain(&source.read().await.expect_err("there is none"));
        assert!(missing.contains("USHER_JOURNEY_PATH"), "{missing}");
        for text in ["journey: one", "journey: two"] {
            std::fs::write(&path, text).expect("it can be written");
            assert_eq!(source.read().await.expect("readable"), text);
        }
        for (bytes, part) in [
            (vec![b'#'; JOURNEY_BYTES_MAX + 1], "over 1048576 bytes"),
            (vec![0xff], "UTF-8"),
        ] {
            std::fs::write(&path, bytes).expect("it can be written");
            let told = chain(&source.read().await.expect_err("it is wrong"));
            assert!(told.contains(part), "{told}");
        }
        std::fs::remove_file(&path).expect("it was there");
    }
}
