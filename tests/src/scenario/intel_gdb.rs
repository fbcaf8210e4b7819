//! A debugger on an Intel CPU: what stops a guest by itself, which the usual machine does not do (see
//! [`gdb`](super::gdb)).

use anyhow::Result;

use super::gdb::{gdb, gdb_beside, gdb_ends, says};
use super::gdb_tiny::{print, shows, with_tiny};
use super::{Kind, Lab, Scenario};
use crate::guest::debug_code::{self as code, BLOCK, BLOCK_LEN, CALLS, COUNT, FUNCTION, HAS_LEFT, OUTER, TAKEN};
use crate::guest::gdb_session::{SOCKET, symbols};
use crate::guest::{self, GuestConfig};

pub(super) fn scenarios() -> Vec<Scenario> {
    let tiny = |name: &str, about: &str, run: fn(&Lab<'_>) -> Result<()>| {
        Scenario::new(name, format!("on an Intel CPU, {about}"), 300, run)
            .strait_only()
            .on(Kind::Haswell)
    };
    let linux = |name: &str, about: &str, cpus: u32| {
        let about = format!("on an Intel CPU, {about}");
        Scenario::new(name, about, 900, move |lab| linux(lab, cpus))
            .strait_only()
            .full()
            .on(Kind::Haswell)
    };
    vec![
        tiny("intel-gdb-stops", "a guest stops at breakpoints, watchpoints and behind steps", stops),
        tiny("intel-gdb-thousand", "a thousand breakpoints, a guest's own among them", thousand),
        tiny(
            "intel-gdb-launch",
            "a step into a guest of the guest ends where the outer one goes on",
            launch,
        ),
        linux(
            "intel-gdb-linux",
            "gdb stops Linux at its first line of C, in a module at its load, at a variable, and lets it go on",
            1,
        ),
        linux("intel-gdb-linux-smp", "the same with two CPUs", 2),
    ]
}

/// What gdb prints that executes a script at a tiny guest which has not started.
fn at_tiny(lab: &Lab<'_>, program: &[u8], script: &str) -> Result<String> {
    with_tiny(lab, program, || gdb(lab, &format!("set architecture i386:x86-64\n{script}")))
}

fn stops(lab: &Lab<'_>) -> Result<()> {
    let counter = format!("*(int *) {COUNT:#x}");
    let count = |label| print(label, &counter);
    let rip = |label| print(label, "$rip");
    let script = [
        "stepi\nstepi\n",
        &rip("two steps"),
        &format!("break *{FUNCTION:#x}\ncontinue\n"),
        &rip("breakpoint"),
        &count("first call"),
        "continue\n",
        &count("second call"),
        "delete\nstepi\n",
        &rip("one step"),
        &format!("hbreak *{FUNCTION:#x}\ncontinue\n"),
        &count("third call"),
        &format!("delete\nwatch {counter}\ncontinue\n"),
        &count("watched"),
        &format!("delete\nawatch {counter}\ncontinue\n"),
        &count("accessed"),
        "delete\n",
        &format!("maintenance packet vCont;r{:x},{:x}:p1.1\n", code::MAIN, code::MAIN + 0x70),
        "maintenance flush register-cache\n",
        &rip("behind a range"),
        &format!("hbreak *{:#x}\ncontinue\n", FUNCTION + 1),
        &rip("in the function"),
        "delete\ncontinue\n",
    ];
    let said = at_tiny(lab, &code::stops(), &script.concat())?;
    shows(
        &said,
        &[
            ("two steps", code::MAIN + 5),
            ("breakpoint", FUNCTION),
            ("first call", 1),
            ("second call", 2),
            ("one step", FUNCTION + 1),
            ("third call", 3),
            ("watched", 4),
            ("accessed", 5),
            ("behind a range", FUNCTION),
            ("in the function", FUNCTION + 1),
        ],
    )?;
    says(&said, "Old value = 3\nNew value = 4\n")?;
    says(&said, "exited normally")
}

/// The guest adds up the bytes that the breakpoints stood in.
fn thousand(lab: &Lab<'_>) -> Result<()> {
    let set = format!(
        "set breakpoint always-inserted on\nset $n = 0\nwhile $n < {BLOCK_LEN}\n  \
         break *({BLOCK:#x} + $n)\n  set $n = $n + 1\nend\n"
    );
    let script = [
        &set,
        "continue\n",
        &print("at the first", "$rip"),
        &print("served", &format!("*(int *) {TAKEN:#x}")),
        &print("called", &format!("*(int *) {COUNT:#x}")),
        "set $n = 1\nwhile $n < 30\n  continue\n  set $n = $n + 1\nend\n",
        &print("at the thirtieth", "$rip"),
        &print("behind so many", "$rdx"),
        "delete\ncontinue\n",
    ];
    let said = at_tiny(lab, &code::stops(), &script.concat())?;
    says(&said, &format!("Breakpoint {BLOCK_LEN} at"))?;
    shows(
        &said,
        &[
            ("at the first", BLOCK),
            ("served", 1),
            ("called", CALLS),
            ("at the thirtieth", BLOCK + 29),
            ("behind so many", 29),
        ],
    )?;
    says(&said, "exited normally")
}

fn launch(lab: &Lab<'_>) -> Result<()> {
    let left = |label| print(label, &format!("*(int *) {HAS_LEFT:#x}"));
    let rip = |label| print(label, "$rip");
    let script = [
        &format!("hbreak *{:#x}\ncontinue\n", code::launch_at()),
        &rip("at VMLAUNCH"),
        &format!("hbreak *{FUNCTION:#x}\nstepi\n"),
        &rip("behind it"),
        &left("not yet"),
        "continue\n",
        &rip("in the function"),
        &left("by the outer one"),
        &print("served", &format!("*(int *) {TAKEN:#x}")),
        "stepi\n",
        &rip("one step"),
        "delete\ncontinue\n",
    ];
    let said = at_tiny(lab, &code::launches(), &script.concat())?;
    shows(
        &said,
        &[
            ("at VMLAUNCH", code::launch_at()),
            ("behind it", OUTER),
            ("not yet", 0),
            ("in the function", FUNCTION),
            ("by the outer one", 1),
            ("served", 1),
            ("one step", FUNCTION + 1),
        ],
    )?;
    says(&said, "exited normally")
}

/// Functions and a variable of the kernel.
const NAMES: &str = "start_kernel|panic|do_init_module|do_one_initcall|jiffies";

/// The kernel tries an INT3 of its own while it starts (`int3_selftest`), with one of gdb's elsewhere. A module's first
/// function is what `do_one_initcall` is called with.
const LINUX: &str = "hbreak start_kernel
continue
backtrace 1
break panic
tbreak do_init_module
continue
tbreak do_one_initcall
continue
set $start = $rdi
tbreak *$start
continue
printf \"in the module: %d\\n\", $rip == $start
backtrace 2
nexti 8
printf \"steps over calls: %d\\n\", $rip > $start && $rip < $start + 0x400
set $before = *(unsigned long *) &jiffies
watch *(unsigned long *) &jiffies
continue
printf \"later: %d\\n\", *(unsigned long *) &jiffies > $before
delete
detach
";

fn linux(lab: &Lab<'_>, cpus: u32) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        memory_mib: 128,
        cpus,
        ..GuestConfig::default().told("nokaslr")
    };
    lab.run(&config, |linux| {
        symbols(lab.agent, linux, NAMES)?;
        gdb_beside(lab, LINUX)?;
        linux.reboot()?;
        linux.sh("load")?;
        let said = gdb_ends(lab)?;
        for words in [
            "Breakpoint 1, 0x",
            "#0  0xffffffff8",
            " in start_kernel ()",
            " in do_init_module ()",
            " in do_one_initcall ()",
            "in the module: 1\n",
            "steps over calls: 1\n",
            "Hardware watchpoint",
            "later: 1\n",
        ] {
            says(&said, words)?;
        }
        guest::says(linux, "nproc", &cpus.to_string())
    })
}
