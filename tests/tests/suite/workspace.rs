//! The workspace that is tested: where it is, and its binaries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace holds this package")
}

/// The folder of the binaries, built as they are now, once for all tests of a process.
pub fn binaries() -> &'static Path {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let build = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bin", "usher"])
            .args([
                "--bin",
                "content-trends",
                "--bin",
                "outcome-learner",
                "--bin",
                "profile-writer",
                "--bin",
                "timer-sweeper",
                "--bin",
                "trigger-delivery",
            ])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
        // This test is target/PROFILE/deps/suite-HASH.
        let test = std::env::current_exe().expect("a test has a path");
        let folder = test.ancestors().nth(2).expect("it lies in the target folder");
        folder.to_owned()
    })
}
