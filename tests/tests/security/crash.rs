//! A crash leaves no core file and no secret in the output.

use std::fs;

use watchword_tests::until;

use crate::embedded;

#[tokio::test]
async fn a_crash_leaves_no_core_and_no_secret() {
    for signal in ["ABRT", "SEGV"] {
        let mut pipeline = embedded().await;
        let to = "+4915157700771";
        assert_eq!(pipeline.ask("all", "sms", to).await.status, 202);
        let process = &mut pipeline.processes.get_mut("all").unwrap().process;
        let id = process.id();
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let words: Vec<_> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
        process.signal(signal);
        if signal == "SEGV" {
            // The runtime's SIGSEGV handler looks for a stack overflow; a signal sent from outside
            // has none, so the handler restores the default action and returns. A second signal
            // then ends the process. Signals sent before that are merged with the first, so repeat
            // them.
            until(10, "the process ends", || {
                process.signal(signal);
                let ended = process.ended();
                async move { ended }
            })
            .await;
        }
        let status = process.wait(10);
        assert!(!status.success());
        let status = format!("{status:?} {status}");
        assert!(!status.contains("core dumped"), "{status}");
        let folder = std::env::current_dir().unwrap();
        let cores = fs::read_dir(folder).unwrap().flatten().filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name == "core" || name == format!("core.{id}")
        });
        assert_eq!(cores.count(), 0);
        let logs = pipeline.logs();
        assert!(!logs.contains(&to[1..]), "{logs}");
    }
}
