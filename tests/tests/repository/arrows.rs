//! Dependencies between crates: they point up the table of ARCHITECTURE.md only, and some libraries
//! may be named by one crate only.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The crates from the lowest layer up. A crate depends on earlier ones only.
const ORDER: [&str; 21] = [
    "watchword-failpoint",
    "watchword-dial",
    "watchword-metrics",
    "watchword-core",
    "watchword-events",
    "watchword-storage",
    "watchword-broker",
    "watchword-ledger",
    "watchword-chassis",
    "watchword-verifier",
    "watchword-issuer",
    "watchword-delivery",
    "watchword-sms-worker",
    "watchword-email-worker",
    "watchword-admin",
    "watchword-simulator",
    "watchword",
    "watchword-fuzz",
    "watchword-tests",
    "watchword-bench",
    "watchword-operations",
];

/// A library and the only crates that may name it. The bench may name more, because its lean
/// pipeline uses no crate of the product.
const OWNERS: [(&str, &[&str]); 7] = [
    ("prometheus", &["watchword-metrics"]),
    ("lapin", &["watchword-broker", "watchword-bench"]),
    ("redis", &["watchword-storage", "watchword-bench"]),
    ("rusqlite", &["watchword-storage"]),
    ("lettre", &["watchword-email-worker"]),
    ("phonenumber", &["watchword-core"]),
    ("chacha20poly1305", &["watchword-core"]),
];

/// Dependencies that a crate must not have: (crate, dependency).
const NEVER: [(&str, &str); 10] = [
    ("watchword-core", "tokio"),
    ("watchword-events", "tokio"),
    ("watchword-verifier", "watchword-broker"),
    ("watchword-issuer", "watchword-delivery"),
    ("watchword-delivery", "watchword-verifier"),
    ("watchword-delivery", "watchword-issuer"),
    ("watchword-email-worker", "watchword-sms-worker"),
    ("watchword-delivery", "reqwest"),
    ("watchword-admin", "watchword-sms-worker"),
    ("watchword-admin", "reqwest"),
];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let normal = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal);
            (
                package.name.to_string(),
                normal.map(|dependency| dependency.name.clone()).collect(),
            )
        })
        .collect()
}

#[test]
fn dependencies_point_up_the_table() {
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    for (name, dependencies) in dependencies() {
        let own = place(&name).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in dependencies
            .iter()
            .filter(|dependency| dependency.starts_with("watchword"))
        {
            assert!(
                place(dependency).is_some_and(|other| other < own),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn each_library_has_its_owner() {
    let dependencies = dependencies();
    for (library, owners) in OWNERS {
        for (name, _) in dependencies
            .iter()
            .filter(|(_, of)| of.iter().any(|dependency| dependency == library))
        {
            assert!(
                owners.contains(&name.as_str()),
                "{name} must not name {library}"
            );
        }
    }
    for (name, dependency) in NEVER {
        assert!(
            !dependencies[name].iter().any(|of| of == dependency),
            "{name} must never name {dependency}"
        );
    }
}
