//! The state on disk: one file, replaced as a whole.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{Applications, Entry, Source};
use crate::mec::Application;

#[derive(Serialize, Deserialize)]
struct Document {
    revision: u64,
    applications: Vec<Saved>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    source: Source,
    application: Application,
}

/// What was written last; nothing when there is no file yet.
pub(super) fn read(path: &Path) -> Result<(u64, Applications)> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, Applications::new())),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let hint = || {
        format!(
            "{} was not written by this program; move it away to start empty",
            path.display()
        )
    };
    let document: Document = serde_json::from_str(&text).with_context(hint)?;
    let mut applications = Applications::new();
    for Saved {
        source,
        application,
    } in document.applications
    {
        let (id, entry) = Entry::new(source, application).with_context(hint)?;
        applications.insert(id, Arc::new(entry));
    }
    Ok((document.revision, applications))
}

/// Replaces the file: after a crash there is the old one or the new one.
pub(super) async fn write(path: PathBuf, revision: u64, applications: Applications) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        let saved = applications.values().map(|e| Saved {
            source: e.source,
            application: e.application.clone(),
        });
        let text = serde_json::to_vec(&Document {
            revision,
            applications: saved.collect(),
        })?;
        let directory = path.parent().context("no directory")?;
        fs::create_dir_all(directory)?;
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        Ok(File::open(directory)?.sync_all()?)
    })
    .await?
}
