//! Files on the command line: rules and configurations.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    config::Config,
    mec::{Application, Configuration, Refusal},
    store::{Entry, Source},
};

/// Says of every file whether it is right; whether all are.
pub(super) fn check(paths: &[PathBuf]) -> bool {
    let mut well = true;
    for path in paths {
        let result = match extension(path) {
            Some("toml") => Config::load(path).map(|config| count(config.ports.len(), "port")),
            _ => applications(path).map(|applications| {
                let rules: usize = applications
                    .iter()
                    .map(|application| application.traffic_rules.len())
                    .sum();
                let applications = count(applications.len(), "application");
                format!("{applications}, {}", count(rules, "traffic rule"))
            }),
        };
        match result {
            Ok(what) => println!("{}: ok, {what}", path.display()),
            Err(error) => {
                well = false;
                eprintln!("{error:#}");
            }
        }
    }
    well
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The applications in a file or in the files of a directory; every problem if there are any.
pub(super) fn applications(path: &Path) -> Result<Vec<Application>> {
    let mut problems = Vec::new();
    let mut owners: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut all = Vec::new();
    for file in files(path)? {
        let documents = documents(&file)?;
        for (index, document) in documents.into_iter().enumerate() {
            let place = if index == 0 {
                file.display().to_string()
            } else {
                format!("{} (document {})", file.display(), index + 1)
            };
            match Configuration::read(document) {
                Err(refusal) => problems.push(format!("{place}: {refusal}")),
                Ok(Configuration { applications }) => all.extend(
                    applications
                        .into_iter()
                        .map(|a| (place.clone(), file.clone(), a)),
                ),
            }
        }
    }
    for (place, file, application) in &all {
        if let Err(refusal) = Entry::new(Source::Mp2, application.clone()) {
            problems.push(format!(
                "{place}: application `{}`: {refusal}",
                application.app_instance_id
            ));
        }
        if let Some(other) = owners.insert(application.app_instance_id.clone(), file.clone()) {
            let refusal = Refusal::new(
                "/appInstanceId",
                format!(
                    "`{}` is in {} too",
                    application.app_instance_id,
                    other.display()
                ),
            );
            problems.push(format!("{place}: {refusal}"));
        }
    }
    if problems.is_empty() {
        Ok(all
            .into_iter()
            .map(|(_, _, application)| application)
            .collect())
    } else {
        Err(anyhow!(problems.join("\n")))
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(cannot)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)
        .with_context(cannot)?
        .collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| matches!(extension(file), Some("json" | "yaml" | "yml")));
    files.sort();
    if files.is_empty() {
        bail!(
            "there is no .json, .yaml or .yml file in {}",
            path.display()
        );
    }
    Ok(files)
}

fn documents(path: &Path) -> Result<Vec<Value>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let malformed = || path.display().to_string();
    if extension(path) == Some("json") {
        return Ok(vec![serde_json::from_str(&text).with_context(malformed)?]);
    }
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
    documents.collect::<Result<_, _>>().with_context(malformed)
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(OsStr::to_str)
}
