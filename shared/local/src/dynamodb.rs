//! The embedded DynamoDB: dynoxide in memory, on a thread and a runtime of its own, because its calls block.

use std::thread;
use std::time::Duration;

use dynoxide::Database;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::LocalError;
use crate::faults::{self, Faults};
use crate::template::Table;

/// AWS deletes expired items within days; a minute shows it while one watches.
const TTL_SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// A closing server waits so long for requests in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the embedded DynamoDB behaves.
#[derive(Debug, Clone, Default)]
pub struct DynamoDbOptions {
    /// Port on 127.0.0.1; 0 is a free one.
    pub port: u16,
    /// Delete expired items each minute.
    pub sweep_ttl: bool,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

/// The embedded DynamoDB.
pub struct DynamoDb {
    database: Database,
    url: String,
    close: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    /// The server that clients see, where faults may strike.
    front: Option<JoinHandle<()>>,
}

impl DynamoDb {
    /// Starts the emulator and serves it over HTTP.
    ///
    /// # Errors
    /// When the port is taken or the thread does not start.
    pub async fn start(options: DynamoDbOptions) -> Result<Self, LocalError> {
        let failed = |message: String| LocalError::DynamoDbThread { message };
        let database = Database::memory().map_err(|error| failed(error.to_string()))?;
        let (mut listener, url) = crate::listen("DynamoDB", options.port).await?;
        let mut front = None;
        if faults::dynamodb::may_strike(&options.faults) {
            let (behind, behind_url) = crate::listen("DynamoDB behind its faults", 0).await?;
            let before = std::mem::replace(&mut listener, behind);
            let served = faults::dynamodb::serve(before, behind_url, options.faults.clone());
            front = Some(served.map_err(|error| failed(error.to_string()))?);
        }
        // The listener moves to the other runtime, so it must leave this one.
        let listener = listener.into_std().map_err(|error| failed(error.to_string()))?;
        let (close, closed) = oneshot::channel::<()>();
        let served = database.clone();
        let thread = thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || serve(listener, served, options.sweep_ttl, closed))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            database,
            url,
            close: Some(close),
            thread: Some(thread),
            front,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates a table, with its TTL.
    ///
    /// # Errors
    /// When the emulator refuses it.
    pub fn create_table(&self, table: &Table) -> Result<(), LocalError> {
        let refused = |operation, message: String| LocalError::DynamoDb {
            operation,
            resource: table.name.clone(),
            message,
        };
        let request = serde_json::from_value(table.create_table.clone())
            .map_err(|error| refused("CreateTable", error.to_string().replace("VALIDATION:", "")))?;
        self.database
            .create_table(request)
            .map_err(|error| refused("CreateTable", error.to_string()))?;
        if let Some(attribute) = &table.ttl_attribute {
            let request = serde_json::json!({
                "TableName": table.name,
                "TimeToLiveSpecification": { "AttributeName": attribute, "Enabled": true },
            });
            let request =
                serde_json::from_value(request).map_err(|error| refused("UpdateTimeToLive", error.to_string()))?;
            self.database
                .update_time_to_live(request)
                .map_err(|error| refused("UpdateTimeToLive", error.to_string()))?;
        }
        Ok(())
    }

    /// Stops listening and ends the thread; requests in flight have two seconds.
    pub async fn close(mut self) {
        if let Some(front) = self.front.take() {
            front.abort();
        }
        if let Some(close) = self.close.take() {
            let _ = close.send(());
        }
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            let _ = tokio::time::timeout(CLOSE_TIMEOUT * 2, joined).await;
        }
    }
}

fn serve(listener: std::net::TcpListener, database: Database, sweep_ttl: bool, closed: oneshot::Receiver<()>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the dynamodb runtime did not start"),
    };
    runtime.block_on(async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the dynamodb server did not start"),
        };
        if sweep_ttl {
            tokio::spawn(sweep(database.clone()));
        }
        let (closing, close_server) = oneshot::channel::<()>();
        let server = dynoxide::server::serve_with_shutdown(listener, database, async {
            let _ = close_server.await;
        });
        let mut server = std::pin::pin!(server);
        tokio::select! {
            served = &mut server => {
                if let Err(error) = served {
                    tracing::error!(error, "the dynamodb server ended");
                }
            }
            _ = closed => {
                let _ = closing.send(());
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, server).await;
            }
        }
    });
}

async fn sweep(database: Database) {
    let mut interval = tokio::time::interval(TTL_SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        match database.sweep_ttl() {
            Ok(0) => {}
            Ok(items) => tracing::debug!(items, "expired items deleted"),
            Err(error) => tracing::warn!(%error, "expired items could not be deleted"),
        }
    }
}
