//! What is shown, in order. Each act checks what it shows.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{
    page::{print, said, seen, title, typed},
    stage::{self, DIRECTORY, PREFIX, SERVER, Stage, program},
};

const PICTURE: &str = "
                                  ┌───────────── MEC host ─────────────┐
  ┌────────────┐   ┌────────┐     │                                    │     ┌──────────────┐
  │     UE     ├───┤ access ├─────┤ access0 ══════ XDP ══════════ core0 ├─────┤ data network │
  │ 10.45.0.7  │   │ router │     │                ║                   │     │ 203.0.113.9  │
  └────────────┘   └────────┘     │      app0 ═════╩════ app1          │     └──────────────┘
                                  └────────┬───────────────┬───────────┘
                                  ┌────────┴──────┐ ┌──────┴────────┐
                                  │ application A │ │ application B │
                                  │ 198.18.1.2    │ │ 203.0.113.9   │
                                  └───────────────┘ └───────────────┘
  Every box is a network namespace with a kernel's own TCP. The UE always asks 203.0.113.9.";

const GTPU_PICTURE: &str = "
             GTP-U              ┌───────────── MEC host ─────────────┐            GTP-U
  ┌────┐   ┌───────────────┐    │                                    │    ┌──────────────────┐   ┌──────────────┐
  │ UE ├───┤ base station  ╞════╡ access0 ══════ XDP ══════════ core0 ╞════╡ gateway          ├───┤ data network │
  └────┘   │ 192.0.2.1     │    │                ║                   │    │ 192.0.2.10       │   │ 203.0.113.9  │
           │ (sgsnemu)     │    │      app0 ─────╨──── app1          │    │ (osmo-ggsn)      │   └──────────────┘
           └───────────────┘    └────────┬───────────────┬───────────┘    └──────────────────┘
                                ┌────────┴──────┐ ┌──────┴────────┐
                                │ application A │ │ application B │
                                │ 198.18.1.2    │ │ 203.0.113.9   │
                                └───────────────┘ └───────────────┘
  Base station and gateway are Osmocom's; edgesteer sits in the wire between them. The applications see
  no tunnel. The UE always asks 203.0.113.9.";

/// What to do with a lab that was kept.
pub(crate) fn hints(gtpu: bool) -> Result<String> {
    let edgesteer = format!("{} --server {SERVER}", program()?);
    let ue = ue_namespace(gtpu);
    Ok(format!(
        "
The lab stays. To play with it:

  ip netns exec {ue} curl {WEB}
      ask as the UE
  $EDITOR {DIRECTORY}/rules.d/video.json
      change the rules; saving is enough
  {edgesteer} get flows
      what is steered now; also: get rules, get ports, get reasons
  {edgesteer} explain --in access0 --flow \"tcp 10.45.0.7:40000 > 203.0.113.9:80\"
      what would become of a packet, and why
  ip netns exec {PREFIX}-host curl http://127.0.0.1:9464/metrics
      what Prometheus sees
  tail -f {DIRECTORY}/edgesteer.log
      what the daemon has to say

  cargo xtask demo --clean
      remove it all"
    ))
}

const WEB: &str = "http://203.0.113.9/";
const FILM: &str = "http://203.0.113.9/film";
const OTHER: &str = "http://203.0.113.9:8080/";
const NETWORK: &str = "data network";

pub(crate) fn play(stage: &mut Stage) -> Result<()> {
    print(if stage.is_gtpu() {
        GTPU_PICTURE
    } else {
        PICTURE
    });

    title(1, "Two rules are there, both INACTIVE: edgesteer is a wire");
    typed("edgesteer doctor");
    let checks = stage.doctor()?;
    seen(&format!(
        "{} checks find nothing that would stop steering here",
        checks.lines().count()
    ));
    get(stage, "rules")?;
    ask(stage, WEB, NETWORK)?;
    seen("the answer comes from the data network");
    if stage.is_gtpu() {
        let sessions = get(stage, "sessions")?;
        let address = stage.ue_address().to_string();
        ensure!(sessions.contains(&address), "the UE's session is not known");
        seen("edgesteer has learned from the packets by which tunnels the UE is reached");
    }

    title(2, "The rules become ACTIVE, by saving their file");
    said(&rule_text()?);
    stage::set_state("ACTIVE")?;
    answered(stage, WEB, "application A")?;
    answered(stage, OTHER, "application B")?;
    ask(stage, WEB, "application A")?;
    seen("the same request is answered by application A: destination translated, and restored");
    ask(stage, OTHER, "application B")?;
    seen("port 8080 goes to application B: found by its MAC address, the packet untouched");

    title(3, "Every flow is counted, in both directions");
    let size = ue(
        stage,
        &[
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download} bytes at %{speed_download} B/s\n",
            FILM,
        ],
    )?;
    said(&size);
    let flows = get(stage, "flows")?;
    let address = stage.ue_address().to_string();
    ensure!(flows.contains(&address), "the UE's flows are not listed");
    ensure!(
        bytes_of_web(stage)? > 8 << 20,
        "the film is not counted in full"
    );
    seen("up is the UE's requests, down the application's film");

    title(4, "Prometheus sees the rules' counters");
    typed(&format!(
        "ip netns exec {PREFIX}-host curl http://127.0.0.1:9464/metrics | grep edgesteer_rule_"
    ));
    said(&rule_metrics(stage)?);
    seen("one series for each rule, and no poll between the counter and the scrape");

    title(
        5,
        "The daemon is killed: steering goes on, and it picks up where it was",
    );
    typed("kill -KILL $(pidof edgesteer)");
    let before = bytes_of_web(stage)?;
    stage.kill_daemon()?;
    ask(stage, WEB, "application A")?;
    stage.start_daemon()?;
    get(stage, "rules")?;
    ensure!(
        bytes_of_web(stage)? > before,
        "what was steered meanwhile is not counted"
    );
    seen("the pinned program never stopped; no packet and no count was lost");

    title(6, "INACTIVE again");
    stage::set_state("INACTIVE")?;
    answered(stage, WEB, NETWORK)?;
    ask(stage, WEB, NETWORK)?;
    seen("the UE is back in the data network");
    Ok(())
}

/// The lines of `/metrics` that are about rules.
fn rule_metrics(stage: &Stage) -> Result<String> {
    let metrics = stage.host("curl", &["-sS", "http://127.0.0.1:9464/metrics"])?;
    let lines = metrics.lines();
    let lines: Vec<_> = lines
        .filter(|it| it.starts_with("edgesteer_rule_"))
        .collect();
    Ok(lines.join("\n"))
}

fn bytes_of_web(stage: &Stage) -> Result<u64> {
    let metrics = rule_metrics(stage)?;
    let name = "edgesteer_rule_bytes_total{app=\"video\",rule=\"web\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = value.context("rule video/web is not in /metrics")?;
    Ok(value.parse()?)
}

fn rule_text() -> Result<String> {
    let path = format!("{DIRECTORY}/rules.d/video.json");
    typed(&format!("sed -i s/INACTIVE/ACTIVE/ {path}; cat {path}"));
    Ok(fs::read_to_string(path)?.replace("\"INACTIVE\"", "\"ACTIVE\""))
}

/// Asks as a person at the UE would, and checks who answers.
fn ask(stage: &Stage, url: &str, who: &str) -> Result<()> {
    let answer = ue(stage, &["-sS", "--max-time", "5", url])?;
    said(&answer);
    ensure!(answer.contains(who), "{who} should have answered {url}");
    Ok(())
}

/// Waits until it is `who` that answers; new rules are in force within moments of being saved.
fn answered(stage: &Stage, url: &str, who: &str) -> Result<()> {
    stage::wait(&format!("{who} does not answer {url}"), || {
        let answer = stage.ue("curl", &["-sS", "--max-time", "2", url])?;
        ensure!(answer.contains(who), "the answer is {answer}");
        Ok(())
    })
}

fn ue(stage: &Stage, args: &[&str]) -> Result<String> {
    let url = args.last().context("curl without URL")?;
    let namespace = ue_namespace(stage.is_gtpu());
    typed(&format!("ip netns exec {namespace} curl {url}"));
    stage.ue("curl", args)
}

/// The namespace of the UE.
fn ue_namespace(gtpu: bool) -> String {
    format!("{PREFIX}-{}", if gtpu { "ue-0" } else { "ue" })
}

fn get(stage: &Stage, what: &str) -> Result<String> {
    typed(&format!("edgesteer get {what}"));
    let table = stage.edgesteer(&["get", what])?;
    said(&table);
    Ok(table)
}
