//! What the programs cost: instructions that the verifier looks at, their size, and the memory of their
//! maps. `budget.txt` holds what was measured last; `EDGESTEER_BLESS=1` notes new values there.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, loaded_programs},
};
use dataplane_user::Limits;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};
use tests::executor::Rig;

const NOTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/budget.txt");
/// Growth that is let pass without a look, in percent. Kernels and CPUs differ a little, and the compiler does not
/// inline the same in every directory.
const TOLERANCE: u64 = 20;
/// Maps with a part for each CPU, whose size depends on how many there are.
const PER_CPU: [&str; 6] = [
    "CACHE",
    "COUNTS",
    "RULE_COUNTS",
    "TOLD",
    "SCRATCH",
    "CHUNKS",
];
const LIMITS: Limits = Limits {
    flows: 65_536,
    filters: 16_384,
    rules: 4_096,
    fragments: 4_096,
    sessions: 16_384,
    vips: 1,
};

#[test]
fn nothing_costs_more_than_noted() {
    let rig = Rig::with_limits(LIMITS).unwrap();
    let [verified, bytes, maps, per_cpu] = measure(&rig.program().unwrap());
    drop(rig);
    // The programs that know tunnels have the same maps.
    let rig = Rig::mobile_with(LIMITS).unwrap();
    let short = rig.program().unwrap();
    let long = beside(&short, "steer_long");
    let [short_verified, short_bytes, ..] = measure(&short);
    let [long_verified, long_bytes, ..] = measure(&long);
    let found = [
        ("verified instructions", verified),
        ("bytes of instructions", bytes),
        (
            "verified instructions of tunnels' short way",
            short_verified,
        ),
        ("bytes of instructions of tunnels' short way", short_bytes),
        ("verified instructions of tunnels' long way", long_verified),
        ("bytes of instructions of tunnels' long way", long_bytes),
        ("bytes of maps", maps),
        ("bytes of maps for each CPU", per_cpu),
    ];
    let text: String = found
        .iter()
        .map(|(name, value)| format!("{value:>9} {name}\n"))
        .collect();
    if env::var_os("EDGESTEER_BLESS").is_some() {
        fs::write(NOTED, text).unwrap();
        return;
    }
    let noted = fs::read_to_string(NOTED).unwrap();
    assert_eq!(noted.lines().count(), found.len(), "{NOTED}");
    for (line, (name, value)) in noted.lines().zip(found) {
        let (limit, noted_name) = line.trim_start().split_once(' ').unwrap();
        let limit: u64 = limit.parse().unwrap();
        assert_eq!(noted_name, name);
        assert!(
            value * 100 <= limit * (100 + TOLERANCE),
            "{name}: {value}, and {limit} are noted; is it worth it? Then EDGESTEER_BLESS=1. All:\n{text}"
        );
        assert!(
            value * 100 >= limit * (100 - 2 * TOLERANCE),
            "{name}: only {value}, and {limit} are noted; keep it that way with EDGESTEER_BLESS=1. All:\n{text}"
        );
    }
}

/// As the documentation of `Limits` has it, with as many sets in the flow caches as there have to be.
#[test]
fn a_flow_takes_the_memory_that_is_said() {
    let taken = |flows| {
        let rig = Rig::with_limits(Limits { flows, ..LIMITS }).unwrap();
        let ids = rig.program().unwrap().map_ids().unwrap().unwrap();
        let maps = ids.into_iter().map(|id| MapInfo::from_id(id).unwrap());
        let sizes = maps.map(|map| (map.name_as_str().unwrap().to_owned(), memory(&map)));
        sizes.collect::<BTreeMap<_, _>>()
    };
    let (few, many) = (taken(1 << 14), taken(1 << 16));
    let more = (1 << 16) - (1 << 14);
    for (map, octets) in [
        ("RECORDS", 384),
        ("FLOWS", 64),
        ("CACHE", 768),
        ("AFFINITIES", 24),
    ] {
        let each = (many[map] - few[map]) as f64 / f64::from(more);
        println!("{map}: {each:.1} octets a flow");
        let said = f64::from(octets);
        assert!(
            (each - said).abs() < said / 50.0,
            "{map}: {each}, not {said}"
        );
    }
    let all = |maps: &BTreeMap<String, u64>| maps.values().sum::<u64>();
    let each = (all(&many) - all(&few)) as f64 / f64::from(more);
    assert!(
        (1238.0..1246.0).contains(&each),
        "{each} octets a flow in all"
    );
}

/// Octets of memory that the kernel has for a map.
fn memory(map: &MapInfo) -> u64 {
    let file = map.fd().unwrap();
    let path = format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.unwrap().trim().parse().unwrap()
}

/// Copies through memory are loops that the verifier walks byte by byte, and packets wait for.
#[test]
fn nothing_is_copied_by_a_function() {
    let object = object::File::parse(dataplane_user::OBJECT).unwrap();
    let mut names = BTreeSet::new();
    for section in object.sections() {
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                continue;
            };
            let symbol = object.symbol_by_index(symbol).unwrap();
            names.insert(symbol.name().unwrap());
        }
    }
    assert!(
        names.contains("FLOWS"),
        "the flow table is not among {names:?}"
    );
    assert!(
        !names.contains("memcpy") && !names.contains("memmove"),
        "{names:?}"
    );
}

/// The program of this name that has maps in common with `program`.
fn beside(program: &ProgramInfo, name: &str) -> ProgramInfo {
    let maps = |program: &ProgramInfo| program.map_ids().unwrap().unwrap();
    let own = maps(program);
    let mut loaded = loaded_programs().filter_map(Result::ok);
    let found = loaded
        .find(|it| it.name_as_str() == Some(name) && maps(it).iter().any(|map| own.contains(map)));
    found.unwrap_or_else(|| panic!("no program {name}"))
}

/// Verified instructions and octets of instructions; octets of maps that CPUs share, and of the others for each CPU.
fn measure(program: &ProgramInfo) -> [u64; 4] {
    let (mut shared, mut per_cpu) = (0, 0);
    for id in program.map_ids().unwrap().unwrap() {
        let map = MapInfo::from_id(id).unwrap();
        let entry = u64::from(map.key_size() + map.value_size().next_multiple_of(8));
        let bytes = entry * u64::from(map.max_entries());
        if PER_CPU.contains(&map.name_as_str().unwrap()) {
            per_cpu += bytes / aya::util::nr_cpus().unwrap() as u64;
        } else {
            shared += bytes;
        }
    }
    [
        program.verified_instruction_count().unwrap().into(),
        program.size_translated().unwrap().into(),
        shared,
        per_cpu,
    ]
}
