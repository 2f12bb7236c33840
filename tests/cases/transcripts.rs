//! The transcripts, a test for each.

use std::collections::BTreeSet;
use std::path::Path;

use crate::transcript::check;

macro_rules! transcripts {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(&stringify!($name).replace('_', "-"));
            }
        )*

        /// Or it would never run.
        #[test]
        fn every_transcript_has_its_test() {
            let tests = BTreeSet::from([$(stringify!($name).replace('_', "-")),*]);
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
            let folders = folder.read_dir().unwrap().map(Result::unwrap);
            let cases = folders.filter(|entry| entry.path().join("case.txt").exists());
            let cases: BTreeSet<String> =
                cases.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            assert_eq!(tests, cases);
        }
    };
}

transcripts! {
    abort,
    alone,
    baseline,
    compared,
    copy_to_mongo,
    copy_to_postgres,
    down,
    edited,
    failing_backfill,
    failing_down,
    failing_index,
    failing_insert,
    failing_places,
    failing_transaction,
    failing_unique_index,
    held,
    import,
    invariants,
    irreversible,
    lint,
    next_release,
    odd_ends,
    order,
    rejects,
    requires,
    rollback,
    sessions,
    up_down_up,
    wrong_files,
}
