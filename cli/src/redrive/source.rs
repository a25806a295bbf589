//! Where the records of given-up batches are: files, an SQS queue, an S3 bucket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use usher_aws::bucket::BucketFolder;
use usher_aws::queue::{Queue, QueueMessage};

use super::failure_record::{self, FailedBatch};
use crate::patience::{patiently, unless_stopped};
use crate::people::counted;
use crate::progress::Progress;

/// Bytes of failure records that are held at most; what is redriven is sorted first.
pub const BYTES_MAX: usize = 512 * 1024 * 1024;

/// Where to look.
pub enum Source {
    /// A file, or a folder of files.
    Files(PathBuf),
    /// An SQS queue.
    Queue(Queue),
    /// An S3 folder.
    Bucket(BucketFolder),
}

/// One record of a failure destination, or several in one file.
pub struct Found {
    /// What people call it.
    pub name: String,
    /// The batches that it tells of.
    pub batches: Vec<FailedBatch>,
    /// Why it can't be used, where it is no record of a failure destination. It stays where it is.
    pub problem: Option<String>,
    origin: Origin,
}

enum Origin {
    File,
    Message(QueueMessage),
    Object(String),
}

impl Source {
    /// Reads everything that is there.
    ///
    /// # Errors
    /// When it can't be read. What is there and is no record of a failure destination stops nothing: see
    /// [`Found::problem`].
    pub async fn read(&self, stop: &watch::Receiver<bool>) -> Result<Vec<Found>> {
        let progress = Progress::spinner("looking for failed batches");
        let mut reading = Reading {
            found: Vec::new(),
            bytes: 0,
            progress: progress.clone(),
        };
        let read = unless_stopped(stop, async {
            match self {
                Source::Files(path) => reading.files(path),
                Source::Queue(queue) => reading.queue(queue).await,
                Source::Bucket(folder) => reading.bucket(folder).await,
            }
        });
        let read = read.await;
        progress.clear();
        if read.is_err() {
            self.release(&reading.found).await;
        }
        read?;
        Ok(reading.found)
    }

    /// Deletes what was read. Files are left to whoever made them.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub async fn delete(&self, found: &Found) -> Result<()> {
        match (self, &found.origin) {
            (Source::Queue(queue), Origin::Message(message)) => patiently(|| queue.delete(message)).await,
            (Source::Bucket(folder), Origin::Object(key)) => patiently(|| folder.delete(key)).await,
            _ => return Ok(()),
        }
        .with_context(|| {
            format!(
                "cannot delete {}; what it tells of was put, and running it again changes nothing",
                found.name
            )
        })
    }

    /// Lets others see what was read and not deleted. A queue hid it; if that fails, it comes back by itself.
    pub async fn release<'f>(&self, found: impl IntoIterator<Item = &'f Found>) {
        if let Source::Queue(queue) = self {
            for one in found {
                if let Origin::Message(message) = &one.origin {
                    let _ = queue.release(message).await;
                }
            }
        }
    }
}

struct Reading {
    found: Vec<Found>,
    bytes: usize,
    progress: Progress,
}

impl Reading {
    fn take(&mut self, name: String, text: &[u8], origin: Origin) -> Result<()> {
        self.bytes += text.len();
        if self.bytes > BYTES_MAX {
            bail!(
                "there are over {} MiB of failed batches; redrive them in parts",
                BYTES_MAX >> 20
            );
        }
        let read = std::str::from_utf8(text)
            .context("it is not UTF-8")
            .and_then(failure_record::read);
        let (batches, problem) = match read {
            Ok(batches) => (batches, None),
            Err(why) => (Vec::new(), Some(format!("{why:#}"))),
        };
        self.found.push(Found {
            name,
            batches,
            problem,
            origin,
        });
        self.progress
            .show(&format!("{} read", counted(self.found.len(), "failure record")));
        Ok(())
    }

    fn files(&mut self, path: &Path) -> Result<()> {
        let unreadable = || {
            format!(
                "cannot read {}; give a file with a record of a failure destination, or a folder of them",
                path.display()
            )
        };
        if !path.is_dir() {
            let text = std::fs::read(path).with_context(unreadable)?;
            return self.take(path.display().to_string(), &text, Origin::File);
        }
        let entries = std::fs::read_dir(path).with_context(unreadable)?;
        let mut inside = Vec::new();
        for entry in entries {
            let inner = entry.with_context(unreadable)?.path();
            let is_hidden = inner
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden {
                inside.push(inner);
            }
        }
        // By name, so that each run does the same.
        inside.sort();
        inside.iter().try_for_each(|inner| self.files(inner))
    }

    async fn queue(&mut self, queue: &Queue) -> Result<()> {
        // By the queue's id of a message, which of the found ones it is.
        let mut known: HashMap<String, usize> = HashMap::new();
        loop {
            let messages = patiently(|| queue.receive()).await.with_context(|| {
                "cannot read the queue; is its URL right (--queue), and may you receive its messages?".to_owned()
            })?;
            // A page of messages that are all known says nothing of what else is there.
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages {
                // A queue may give a message twice; then only the newest handle is sure to delete it.
                // https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-message-identifiers.html
                if let Some(index) = known.get(&message.message_id) {
                    self.found[*index].origin = Origin::Message(message);
                    continue;
                }
                let (name, text) = (format!("message {}", message.message_id), message.body.clone());
                known.insert(message.message_id.clone(), self.found.len());
                let taken = self.take(name, text.as_bytes(), Origin::Message(message.clone()));
                if taken.is_err() {
                    let _ = queue.release(&message).await;
                }
                taken?;
            }
        }
    }

    async fn bucket(&mut self, folder: &BucketFolder) -> Result<()> {
        let mut next: Option<String> = None;
        loop {
            let page = patiently(|| folder.list(next.as_deref())).await.with_context(|| {
                "cannot list the bucket; is its name right (--bucket), and is this its region (AWS_REGION)?".to_owned()
            })?;
            // S3 shows folders that the console made as empty objects.
            for key in page.keys.into_iter().filter(|key| !key.ends_with('/')) {
                let name = folder.uri_of(&key);
                let text = patiently(|| folder.get(&key))
                    .await
                    .with_context(|| format!("cannot read {name}"))?;
                self.take(name, &text, Origin::Object(key))?;
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_read_by_name_without_what_is_hidden() {
        let folder = tempfile::tempdir().expect("a folder");
        let batch = r#"{"KinesisBatchInfo":{"shardId":"s","startSequenceNumber":"1","endSequenceNumber":"2","batchSize":2,"streamArn":"a"}}"#;
        for name in [
            "sqs/q.jsonl",
            "s3/b/aws/lambda/u/shardId-0/2026/01/05/x",
            ".unfinished/y",
            ".hidden",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(
                path,
                if name.contains("q.jsonl") {
                    format!("{batch}\n{batch}\n")
                } else {
                    batch.to_owned()
                },
            )
            .expect("written");
        }
        let (_keep, stop) = watch::channel(false);
        let found = Source::Files(folder.path().to_owned())
            .read(&stop)
            .await
            .expect("readable");
        let counts: Vec<usize> = found.iter().map(|one| one.batches.len()).collect();
        assert_eq!(counts, [1, 2]);
        std::fs::write(folder.path().join("notes.txt"), "hello").expect("written");
        let found = Source::Files(folder.path().to_owned())
            .read(&stop)
            .await
            .expect("readable");
        let counts: Vec<usize> = found.iter().map(|one| one.batches.len()).collect();
        assert_eq!(counts, [0, 1, 2], "the others are found all the same");
        assert!(found[0].name.contains("notes.txt") && found[0].problem.is_some());
    }
}
