//! Files on the command line: rules and configurations.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dataplane_user::rehearse;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    config::Config,
    configuration::Configuration,
    mec::{self, Application, Outcome, Refusal, State},
    session::Session,
    store::{Desired, Entry, Said, Source, VipEntry},
    vip::{HealthOf, Vip},
    worker,
};

/// Says of every file whether it is right; whether all are. Rules are tried against the configuration that is among
/// the files.
pub(super) fn check(paths: &[PathBuf]) -> bool {
    let is_config = |path: &&PathBuf| extension(path) == Some("toml");
    let mut configs = paths.iter().filter(is_config);
    let config = configs.find_map(|path| Config::load(path).ok());
    let mut well = true;
    for path in paths {
        let result = match extension(path) {
            Some("toml") => Config::load(path).map(|config| count(config.ports.len(), "port")),
            _ => rules(path, config.as_ref()),
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

/// What is in a file or directory of rules; every problem if there are any, those of the data path included.
pub(super) fn rules(path: &Path, config: Option<&Config>) -> Result<String> {
    let Configuration {
        applications,
        sessions,
        vips,
    } = wanted(path)?;
    let mut desired = Desired::default();
    for application in applications.into_iter().flatten() {
        let (id, entry) = Entry::new(Source::Mp2, application)?;
        desired.applications.insert(id, Arc::new(entry));
    }
    let place = path.display();
    let site = config.map(Config::site);
    for vip in vips.into_iter().flatten() {
        if let Some(site) = &site {
            let checked = vip.check_peer(site).and_then(|()| vip.check_ports(site));
            checked.with_context(|| format!("{place}: VIP `{}`", vip.vip_id))?;
        }
        let (id, entry) = VipEntry::new(Source::Mp2, vip)?;
        desired.vips.insert(id, Arc::new(entry));
    }
    for session in sessions.iter().flatten() {
        if let Some(config) = config {
            let checked = session.check_endpoints(&config.gtpu);
            checked.with_context(|| format!("{place}: session {}", session.id()))?;
        }
    }
    let wanted = desired.rules(&HealthOf::new(), &site.unwrap_or_default());
    let options = config.map(worker::options);
    let (limits, ports) = options
        .as_ref()
        .map_or_else(Default::default, |it| (it.limits, Some(&it.ports[..])));
    let applied = rehearse(limits, ports, &wanted)
        .map_err(|error| anyhow!("{place}: {}", worker::sentence(&error)))?;
    let rules = || {
        desired
            .applications
            .values()
            .flat_map(|entry| entry.rules())
    };
    let obstacles = rules().filter_map(|(id, wire, outcome)| match outcome {
        Outcome::NotEnforceable(why) if wire.state == State::Active => Some((id, why.clone())),
        Outcome::NotEnforceable(_) | Outcome::Enforceable(_) => None,
    });
    let left_out: BTreeMap<_, _> = obstacles.chain(applied.not_installed).collect();
    let problems: Vec<_> = left_out
        .iter()
        .map(|(id, why)| format!("{place}: {id} would be left out: {why}"))
        .collect();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let applications = count(desired.applications.len(), "application");
    let rules = count(rules().count(), "traffic rule");
    let sessions = sessions.map(|it| format!(", {}", count(it.len(), "session")));
    let vips = desired.vips.len();
    let vips = (vips > 0).then(|| format!(", {}", count(vips, "VIP")));
    Ok(format!(
        "{applications}, {rules}{}{}",
        sessions.unwrap_or_default(),
        vips.unwrap_or_default()
    ))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a file says, or the files of a directory; every problem if there are any.
pub(super) fn wanted(path: &Path) -> Result<Configuration> {
    let mut problems = Vec::new();
    let mut all: Option<Vec<(String, PathBuf, Application)>> = None;
    let mut sessions = None;
    let mut vips: Option<Vec<(String, PathBuf, Vip)>> = None;
    for file in files(path)? {
        let documents = documents(&file)?;
        for (index, document) in documents.into_iter().enumerate() {
            let place = if index == 0 {
                file.display().to_string()
            } else {
                format!("{} (document {})", file.display(), index + 1)
            };
            match Configuration::read(document.clone()) {
                Err(refusal) => problems.extend(
                    every(refusal, &document)
                        .iter()
                        .map(|refusal| format!("{place}: {refusal}")),
                ),
                Ok(said) => {
                    if let Some(said) = said.applications {
                        let said = said.into_iter().map(|it| (place.clone(), file.clone(), it));
                        all.get_or_insert_with(Vec::new).extend(said);
                    }
                    if let Some(said) = said.sessions {
                        problems.extend(of_sessions(&said, &place));
                        sessions.get_or_insert_with(Vec::new).extend(said);
                    }
                    if let Some(said) = said.vips {
                        let said = said.into_iter().map(|it| (place.clone(), file.clone(), it));
                        vips.get_or_insert_with(Vec::new).extend(said);
                    }
                }
            }
        }
    }
    let all = all.map(|it| checked::<Entry>(it, |it| &it.app_instance_id, &mut problems));
    let vips = vips.map(|it| checked::<VipEntry>(it, |it| &it.vip_id, &mut problems));
    if problems.is_empty() {
        Ok(Configuration {
            applications: all,
            sessions,
            vips,
        })
    } else {
        Err(anyhow!(problems.join("\n")))
    }
}

/// What is said of a kind, with the place and the file of each, and what is wrong with it.
fn checked<T: Said>(
    said: Vec<(String, PathBuf, T::Wire)>,
    id: impl Fn(&T::Wire) -> &String,
    problems: &mut Vec<String>,
) -> Vec<T::Wire> {
    let mut owners: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut all = Vec::with_capacity(said.len());
    for (place, file, one) in said {
        let name = id(&one);
        if let Err(refusal) = T::new(Source::Mp2, one.clone()) {
            let found = every(refusal, &json!(one)).into_iter();
            problems.extend(found.map(|it| format!("{place}: {} `{name}`: {it}", T::NAME)));
        }
        if let Some(other) = owners.insert(name.clone(), file) {
            let what = format!("`{name}` is in {} too", other.display());
            let refusal = Refusal::new(format!("/{}", T::MEMBERS[1]), what);
            problems.push(format!("{place}: {refusal}"));
        }
        all.push(one);
    }
    all
}

fn of_sessions(sessions: &[Session], place: &str) -> Vec<String> {
    let refused = sessions.iter().enumerate().filter_map(|(index, session)| {
        let refusal = session.check().err()?;
        let refusal = refusal.below(&format!("/sessions/{index}"));
        Some(format!("{place}: {refusal}"))
    });
    refused.collect()
}

/// Everything that is wrong with a document, of which `first` is known: the applications and their rules one by one.
fn every(first: Refusal, document: &Value) -> Vec<Refusal> {
    let list = document.as_array().map(|list| (String::new(), list));
    let list = list.or_else(|| {
        Some((
            "/applications".to_owned(),
            document["applications"].as_array()?,
        ))
    });
    let found: Vec<_> = match list {
        Some((place, list)) => {
            let applications = list.iter().enumerate();
            applications
                .flat_map(|(index, app)| {
                    let found = of_application(app).into_iter();
                    let place = format!("{place}/{index}");
                    found.map(move |refusal| refusal.below(&place))
                })
                .collect()
        }
        None if document.get("appInstanceId").is_some() => of_application(document),
        None => Vec::new(),
    };
    if found.is_empty() { vec![first] } else { found }
}

fn of_application(application: &Value) -> Vec<Refusal> {
    let with = |member: &str, items: &[Value]| {
        let mut application = application.clone();
        application["trafficRules"] = json!([]);
        application["dnsRules"] = json!([]);
        application[member] = items.into();
        let application = mec::read(application).and_then(|app| Entry::new(Source::Mp2, app));
        application.err()
    };
    if !application.is_object() {
        return Vec::new();
    }
    let mut found: Vec<_> = with("trafficRules", &[]).into_iter().collect();
    for member in ["trafficRules", "dnsRules"] {
        let items = application[member].as_array().into_iter().flatten();
        for (index, item) in items.enumerate() {
            let alone = format!("/{member}/0");
            let refusal = with(member, std::slice::from_ref(item));
            found.extend(refusal.and_then(|refusal| {
                let rest = refusal.pointer.strip_prefix(&alone)?;
                Some(Refusal::new(
                    format!("/{member}/{index}{rest}"),
                    refusal.detail,
                ))
            }));
        }
    }
    found
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
