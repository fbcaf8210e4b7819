//! gdb with all that a kernel's debug information gives: types, lines, arguments, and the kernel's own commands
//! (`lx-...`, scripts/gdb in its source).

use anyhow::{Result, ensure};

use super::gdb::{execute, gdb_ends, marked, says, start_beside};
use super::{Kind, Lab, Scenario};
use crate::guest::gdb_session::{SOCKET, command_with};
use crate::guest::{self, GuestConfig, number};
use crate::supplies::debug_kernel::SERIES;

/// The kernel's file, as the lab host has it.
const VMLINUX: &str = "/lab/guest/vmlinux-6.12-debug";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb-types",
            "gdb knows a kernel's types and lines, and the kernel's own commands know its log, tasks and modules",
            300,
            types,
        )
        .with_debug_kernel()
        .full(),
        Scenario::new(
            "intel-gdb-types",
            "on an Intel CPU, gdb goes through a kernel by lines, from its first instruction over a reboot",
            1200,
            |lab| lines(lab, 1),
        )
        .strait_only()
        .with_debug_kernel()
        .full()
        .on(Kind::Haswell),
        Scenario::new(
            "intel-gdb-types-smp",
            "the same with two CPUs",
            1200,
            |lab| lines(lab, 2),
        )
        .strait_only()
        .with_debug_kernel()
        .full()
        .on(Kind::Haswell),
    ]
}

fn config(cpus: u32) -> GuestConfig {
    GuestConfig {
        series: SERIES,
        gdb: Some(SOCKET),
        memory_mib: 256,
        cpus,
        ..GuestConfig::default().told("nokaslr")
    }
}

/// The module is loaded by then: `lx-symbols` stops at the loading of others, which the emulated INT3 cannot (see
/// [`gdb`](super::gdb)).
fn types(lab: &Lab<'_>) -> Result<()> {
    lab.needs_kernel(SERIES)?;
    lab.run(&config(2), |guest| {
        guest.sh("load")?;
        let release = guest.sh("uname -r")?;
        let function = guest.sh("sed -n 's/ t crc7_be.*//p;s/ T crc7_be.*//p' /proc/kallsyms")?;
        let tasks = number(guest, "ls -d /proc/[0-9]* | wc -l")?;
        let file = lab.agent.sh(&format!("readlink -f {VMLINUX}"))?;
        let preparation = format!("add-auto-load-safe-path /\nfile {}\n", file.trim());
        let script = format!(
            "lx-version\nlx-dmesg\nlx-ps\nlx-lsmod\nlx-symbols /usr/lib/modules/{release}\n\
             p init_task.comm\nptype struct list_head\np sizeof(init_task) > 1000\n\
             p $lx_task_by_pid(1)->comm\np $lx_module(\"test_module\")->name\np $lx_per_cpu(runqueues, 1).cpu\n\
             p crc7_be\ninfo line crc7_be\nstepi 20\nthread 2\nbacktrace\ndetach\n",
            release = release.trim(),
        );
        let said = execute(lab, &command_with(&preparation, &script))?;
        for words in [
            &format!("Linux version {}", release.trim()),
            "Hello, world",
            "test_module",
            "= \"swapper",
            "struct list_head *next",
            "= \"init",
            &format!("0x{} <crc7_be>", function.trim()),
            "of \"lib/crc7.c\"",
            "default_idle () at arch/x86/",
            "cpu_startup_entry (state=",
        ] {
            says(&said, words)?;
        }
        let shown = said.lines().filter(|line| line.starts_with("0xffff888")).count() as u64;
        // Some of the kernel's threads come and go; the list begins with the first CPU's idle task.
        ensure!(
            shown.abs_diff(tasks) < 10,
            "lx-ps shows {shown} tasks, /proc has {tasks}"
        );
        guest::says(guest, "echo it goes on", "it goes on")
    })
}

/// By lines, arguments and types, from before the kernel has paging to the next start.
const LINES: &str = "info registers rip cr0
hbreak start_kernel
continue
frame
next
frame
next
frame
tbreak do_one_initcall
continue
finish
watch system_state
continue
delete $bpnum
tbreak do_init_module
continue
print mod->name
next
tbreak *(unsigned long) mod->init
continue
backtrace 2
break default_idle_call
set $stopped = 0
set $times = 0
while $times < 12
  continue
  set $stopped = $stopped | (1 << $_thread)
  set $times = $times + 1
end
printf \"threads: %d\\n\", $stopped
delete $bpnum
continue
delete
detach
";

fn lines(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    lab.needs_kernel(SERIES)?;
    let config = GuestConfig {
        waits_for_gdb: true,
        ..config(cpus)
    };
    lab.start(&config, |guest| {
        let preparation = format!("file {VMLINUX}\n");
        start_beside(lab, &command_with(&preparation, &marked(LINES, "info")))?;
        guest.ready()?;
        guest.sh("load")?;
        guest.reboot()?;
        let said = gdb_ends(lab)?;
        // Each CPU has stopped at its own time: threads are counted from 1.
        let threads = format!("threads: {}\n", (1 << (cpus + 1)) - 2);
        for words in [
            "Temporary breakpoint 2, do_one_initcall (fn=",
            "Value returned is $1 = 0",
            "Old value = SYSTEM_SCHEDULING\nNew value = SYSTEM_FREEING_INITMEM",
            " do_init_module (mod=",
            "= \"test_module\"",
            "in do_one_initcall (fn=",
            &threads,
        ] {
            says(&said, words)?;
        }
        ensure!(
            said.matches("Breakpoint 1, start_kernel () at init/main.c:").count() == 2,
            "The guest did not stop at both of its starts"
        );
        let passed = lines_of(&said, "#0  start_kernel () at init/main.c:");
        ensure!(
            passed.len() == 3 && passed.is_sorted() && passed[0] < passed[2],
            "`next` leads from line to line as {passed:?}"
        );
        guest.power_off().map(drop)
    })
}

/// The numbers of lines that gdb shows behind these words.
fn lines_of(said: &str, words: &str) -> Vec<u32> {
    let rests = said.split(words).skip(1);
    rests
        .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok())
        .collect()
}
