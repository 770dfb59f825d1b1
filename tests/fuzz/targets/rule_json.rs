//! A MEC document that makes a rule makes the same one after it was written and read again.
#![no_main]
#![expect(
    dead_code,
    unused_imports,
    reason = "the fuzzer calls only the parser of the module"
)]

#[path = "../../../control/src/mec/mod.rs"]
mod mec;

libfuzzer_sys::fuzz_target!(|document: &[u8]| {
    let Ok(value) = serde_json::from_slice(document) else {
        return;
    };
    if let Ok(rule) = mec::read::<mec::TrafficRule>(value) {
        let written = serde_json::to_value(&rule).expect("a rule is JSON");
        assert_eq!(mec::read::<mec::TrafficRule>(written), Ok(rule));
    }
});
