//! docs/lint is what the rules say.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn the_pages_are_those_of_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lint");
    let pages = lockstep::core::lint::pages::pages();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &pages {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let there: BTreeSet<String> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let names: BTreeSet<String> = pages.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(there, names, "UPDATE_EXPECT=1 writes them");
    for (name, text) in pages {
        let written = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(
            written == text,
            "docs/lint/{name} is not what the rule says; UPDATE_EXPECT=1 writes it"
        );
    }
}
