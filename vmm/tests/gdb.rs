//! `strait run --gdb`, as a debugger meets it: the protocol's packets at a guest of a few instructions.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

mod tiny;

use tiny::{LIMIT, code_of, until};

/// Where the guest is loaded and starts, and what it is: it counts in ECX and calls a function, without an end.
const ENTRY: u64 = tiny::ENTRY;
const PROGRAM: &[u8] = &[
    0xbc, 0x00, 0x00, 0x18, 0x00, // mov esp, 0x180000
    0x31, 0xc9, // xor ecx, ecx
    0x41, // again: inc ecx
    0x89, 0x0d, 0x00, 0x00, 0x20, 0x00, // mov [0x200000], ecx
    0xe8, 0x02, 0x00, 0x00, 0x00, // call function
    0xeb, 0xf2, // jmp again
    0x90, 0xc3, // function: nop; ret
];
const FUNCTION: u64 = ENTRY + 0x15;
const COUNTER: u64 = 0x20_0000;

/// A running guest with a socket for debuggers.
struct Guest {
    strait: Child,
    folder: TempDir,
}

impl Guest {
    /// `None`, which is said, where there is no KVM.
    fn start(options: &[&str]) -> Option<Self> {
        let folder = tiny::folder(PROGRAM)?;
        let (tiny, socket) = (folder.path().join("tiny"), folder.path().join("gdb"));
        let strait = Command::new(env!("CARGO_BIN_EXE_strait"))
            .args(["-v", "run", "--memory", "64M", "--kernel"])
            .arg(&tiny)
            .arg(format!("--gdb=unix:{}", socket.display()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("errors")).expect("a file"))
            .spawn()
            .expect("it starts");
        let guest = Self { strait, folder };
        until("there is a socket", || socket.exists());
        Some(guest)
    }

    fn connect(&self) -> Gdb {
        Gdb::connect(&self.folder.path().join("gdb"))
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("errors")).expect("a file")
    }

    fn code(&mut self) -> Option<i32> {
        code_of(&mut self.strait)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.strait.kill();
        let _ = self.strait.wait();
    }
}

/// The other end.
struct Gdb(UnixStream);

impl Gdb {
    fn connect(path: &Path) -> Self {
        Self(line_to(path))
    }

    fn send(&mut self, text: &str) {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${text}#{sum:02x}").expect("it listens");
    }

    /// The next packet, which is acknowledged.
    fn receive(&mut self) -> String {
        let mut byte = [0];
        let mut text = Vec::new();
        while byte != *b"$" {
            self.0.read_exact(&mut byte).expect("an answer");
        }
        loop {
            self.0.read_exact(&mut byte).expect("an answer");
            if byte == *b"#" {
                break;
            }
            text.push(byte[0]);
        }
        self.0.read_exact(&mut [0; 2]).expect("a checksum");
        let _ = self.0.write_all(b"+");
        expand(&text)
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.receive()
    }

    /// Whether it is the only one.
    fn is_served(&mut self) -> bool {
        let features = "qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+";
        self.ask(features).contains("PacketSize")
    }

    /// The first packets of a debugger: it wants to know which threads there are.
    fn attach(&mut self) {
        assert!(self.is_served());
        let stopped = self.ask("?");
        assert!(stopped.starts_with('T') || stopped.starts_with('S'), "{stopped}");
        assert_eq!(self.ask("Hg0"), "OK");
    }

    /// Register number 16.
    fn rip(&mut self) -> u64 {
        let text = self.ask("p10");
        u64::from_str_radix(&text, 16)
            .map(u64::swap_bytes)
            .expect("8 bytes")
    }

    fn counter(&mut self) -> u32 {
        let text = self.ask(&format!("m{COUNTER:x},4"));
        u32::from_str_radix(&text, 16)
            .map(u32::swap_bytes)
            .expect("4 bytes")
    }
}

/// Run-length encoding: `0*"` is a 0 and five more (GDB manual, "Overview" of the protocol).
fn expand(text: &[u8]) -> String {
    let mut all = String::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let last = all.chars().next_back();
        match (byte, last) {
            (b'*', Some(last)) => {
                let count = bytes.next().expect("a count") - 29;
                all.extend(std::iter::repeat_n(last, count.into()));
            }
            _ => all.push(byte.into()),
        }
    }
    all
}

#[test]
fn a_guest_waits_steps_and_stops_where_it_is_told() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!(gdb.rip(), ENTRY, "before the first instruction");
    assert_eq!(gdb.ask("Z1,100015,1"), "OK");
    assert!(gdb.ask("vCont;c").starts_with('T'));
    assert_eq!(gdb.rip(), FUNCTION);
    assert_eq!(gdb.counter(), 1);
    assert_eq!(gdb.ask("z1,100015,1"), "OK");
    assert!(gdb.ask("vCont;s:p1.1").starts_with('T'));
    assert_eq!(gdb.rip(), FUNCTION + 1, "one instruction on");
    // Register 2 is RCX: the guest goes on with what it is given.
    assert_eq!(gdb.ask("P2=4d00000000000000"), "OK");
    assert_eq!(gdb.ask("Z1,100015,1"), "OK");
    assert!(gdb.ask("vCont;c").starts_with('T'));
    assert_eq!(gdb.counter(), 0x4e);
    assert_eq!(gdb.ask("Z1,1,1"), "OK");
    assert_eq!(gdb.ask("Z1,2,1"), "OK");
    assert_eq!(gdb.ask("Z1,3,1"), "OK");
    assert!(gdb.ask("Z1,4,1").starts_with('E'), "a CPU has four");
}

#[test]
fn a_running_guest_is_interrupted_and_goes_on_without_its_debugger() {
    let Some(guest) = Guest::start(&[]) else { return };
    let mut gdb = guest.connect();
    gdb.attach();
    gdb.send("vCont;c");
    gdb.0.write_all(&[3]).expect("it listens");
    assert!(gdb.receive().starts_with("T02"), "SIGINT");
    let first = gdb.counter();
    assert_eq!(gdb.ask("Z1,100015,1"), "OK");
    // It goes without a word; its breakpoint goes with it, and the guest counts on.
    drop(gdb);
    until("the guest counts on", || {
        let mut other = guest.connect();
        if !other.is_served() {
            return false;
        }
        let (count, rip) = (other.counter(), other.rip());
        assert_eq!(other.ask("D"), "OK");
        count > first + 10 && (ENTRY..ENTRY + PROGRAM.len() as u64).contains(&rip)
    });
}

#[test]
fn a_second_debugger_is_told_of_the_first() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut first = guest.connect();
    first.attach();
    let mut second = guest.connect();
    assert_eq!(second.receive(), "E.another debugger is attached to this guest");
    // Closed, or reset with what was not read.
    assert!(second.0.read(&mut [0]).map_or(true, |len| len == 0));
    assert_eq!(first.rip(), ENTRY, "the first is served on");
}

#[test]
fn physical_memory_and_the_machine_are_shown() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!(gdb.ask("qqemu.PhyMemMode"), "0");
    assert_eq!(gdb.ask("Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(gdb.ask("m100000,2"), "bc00");
    assert!(gdb.ask("m40000000,4").starts_with('E'), "there is no memory");
    // monitor info pci
    gdb.send("qRcmd,696e666f20706369");
    let said = gdb.receive();
    let said = said.strip_prefix('O').expect("output");
    let bytes = (0..said.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&said[at..at + 2], 16).expect("hex"));
    let said = String::from_utf8(bytes.collect()).expect("text");
    assert!(said.starts_with("00:00.0 "), "{said}");
    assert_eq!(gdb.receive(), "OK");
}

#[test]
fn a_debugger_ends_the_guest() {
    let Some(mut guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    gdb.send("k");
    assert_eq!(guest.code(), Some(0), "{}", guest.errors());
    let Some(mut guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!(gdb.ask("vKill;1"), "OK", "gdb waits for it");
    assert_eq!(guest.code(), Some(0), "{}", guest.errors());
}

/// SIGTERM comes to a guest that a debugger holds, and to one that was never let go.
#[test]
fn a_guest_that_stands_still_ends_when_it_is_told_to() {
    for is_attached in [true, false] {
        let Some(mut guest) = Guest::start(&["-S"]) else {
            return;
        };
        let gdb = is_attached.then(|| {
            let mut gdb = guest.connect();
            gdb.attach();
            gdb
        });
        let killed = Command::new("kill").arg(guest.strait.id().to_string()).status();
        assert!(killed.expect("a shell's tool").success());
        assert_eq!(guest.code(), Some(0), "{}", guest.errors());
        if let Some(mut gdb) = gdb {
            // Whoever waits for the guest hears of its end; who looked at it finds the line closed.
            let mut rest = Vec::new();
            let _ = gdb.0.read_to_end(&mut rest);
        }
        assert!(
            !guest.folder.path().join("gdb").exists(),
            "the socket goes with it"
        );
    }
}

/// The debugger that people have, with the names of registers that scripts for QEMU use.
#[test]
fn stock_gdb_finds_its_registers_and_stops_where_it_says() {
    if Command::new("gdb").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no gdb");
    }
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    let script = format!(
        "set pagination off\nset confirm off\nset architecture i386:x86-64\ntarget remote {}\n\
         hbreak *{FUNCTION:#x}\ncontinue\ninfo registers rip cr0 efer gs_base k_gs_base xmm0\ninfo threads\n\
         x/2i $rip\nmonitor help\ndetach\n",
        guest.folder.path().join("gdb").display()
    );
    let path = guest.folder.path().join("script");
    fs::write(&path, script).expect("a script");
    let output = Command::new("gdb")
        .args(["-nx", "-q", "-batch", "-x"])
        .arg(&path)
        .output()
        .expect("it starts");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for words in [
        "Breakpoint 1, 0x0000000000100015",
        "cr0            0x11",
        "efer           0x0",
        "k_gs_base",
        "vCPU 0",
        "=> 0x100015:\tnop",
        "viommu translate DEVICE ADDR",
    ] {
        assert!(said.contains(words), "gdb does not say `{words}`: {said}");
    }
}

#[test]
fn nonsense_ends_the_debugger_and_not_the_guest() {
    let Some(mut guest) = Guest::start(&[]) else {
        return;
    };
    let junk: [&[u8]; 4] = [
        b"$vCont;s:pffffffffffffffff.ffffffffffffffff#00",
        &[0xff; 5000],
        b"$m0,ffffffffffffffff#aa$G00#00$X0,ffffffff:#00",
        b"$qqemu.PhyMemMode$qqemu.#$#$#$$$###}}}***",
    ];
    for bytes in junk {
        let mut gdb = guest.connect();
        let _ = gdb.0.write_all(bytes);
        drop(gdb);
    }
    until("a debugger is served again", || {
        let mut gdb = guest.connect();
        gdb.is_served()
    });
    assert!(
        guest.strait.try_wait().expect("a child").is_none(),
        "{}",
        guest.errors()
    );
}

/// A line to who listens at a socket, which is there a moment before somebody does.
fn line_to(path: &Path) -> UnixStream {
    let mut line = None;
    until("somebody listens", || {
        line = UnixStream::connect(path).ok();
        line.is_some()
    });
    let line = line.expect("somebody listens");
    line.set_read_timeout(Some(LIMIT)).expect("a socket");
    line
}

/// A client of the control socket, past its greeting.
fn qmp(path: &Path) -> BufReader<UnixStream> {
    let mut qmp = BufReader::new(line_to(path));
    qmp.read_line(&mut String::new()).expect("a greeting");
    say(&mut qmp, "qmp_capabilities");
    qmp
}

/// The answer to a command, with the events before it.
fn say(qmp: &mut BufReader<UnixStream>, command: &str) -> String {
    writeln!(qmp.get_mut(), "{{\"execute\": \"{command}\"}}").expect("it listens");
    let mut told = String::new();
    while !told.contains("\"return\"") {
        qmp.read_line(&mut told).expect("an answer");
    }
    told
}

#[test]
fn a_guest_goes_on_when_neither_a_debugger_nor_a_client_holds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("qmp");
    let option = format!("--qmp={}", path.display());
    let Some(guest) = Guest::start(&[&option]) else {
        return;
    };
    let mut qmp = qmp(&path);
    assert!(say(&mut qmp, "stop").contains("STOP"));
    let mut gdb = guest.connect();
    gdb.attach();
    let counter = gdb.counter();
    gdb.send("vCont;c");
    sleep(Duration::from_millis(100));
    assert!(say(&mut qmp, "query-status").contains("paused"));
    gdb.0.write_all(&[3]).expect("it listens");
    assert!(gdb.receive().starts_with('T'));
    assert_eq!(gdb.counter(), counter, "the client holds it");
    assert!(!say(&mut qmp, "cont").contains("RESUME"));
    assert!(say(&mut qmp, "query-status").contains("debug"));
    assert_eq!(gdb.counter(), counter, "the debugger holds it");
    assert_eq!(gdb.ask("D;1"), "OK");
    until("it goes on", || {
        say(&mut qmp, "query-status").contains("running\":true")
    });
}

/// A breakpoint and Ctrl-C cross on their way: gdb has its stop, and hears of no second one.
#[test]
fn an_interrupt_that_meets_a_stop_on_its_way_is_forgotten() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    gdb.0.write_all(&[3]).expect("it listens");
    assert_eq!(gdb.ask("Z1,100015,1"), "OK");
    assert!(gdb.ask("vCont;c").contains("hwbreak"), "not the interrupt");
    assert_eq!(gdb.rip(), FUNCTION);
    gdb.0.write_all(&[3]).expect("it listens");
    assert_eq!(gdb.ask("z1,100015,1"), "OK");
    assert!(gdb.ask("vCont;s:p1.1").starts_with("T05"));
    assert_eq!(gdb.rip(), FUNCTION + 1);
}

#[test]
fn a_guest_that_is_reset_while_it_is_stopped_stays_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("qmp");
    let option = format!("--qmp={}", path.display());
    let Some(guest) = Guest::start(&[&option, "-S"]) else {
        return;
    };
    let mut qmp = qmp(&path);
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!(gdb.ask("Z1,100015,1"), "OK");
    assert!(gdb.ask("vCont;c").starts_with('T'));
    say(&mut qmp, "system_reset");
    until("it is where it began", || gdb.rip() == ENTRY);
    sleep(Duration::from_millis(100));
    assert_eq!(gdb.rip(), ENTRY, "and stays there");
    assert!(gdb.ask("vCont;c").contains("hwbreak"), "its breakpoint does, too");
    assert_eq!(gdb.rip(), FUNCTION);
}

#[test]
fn a_guest_that_no_debugger_has_let_go_waits_for_the_next() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    for says in ["", "junk", "$?#3f"] {
        let _ = guest.connect().0.write_all(says.as_bytes());
    }
    until("they have gone", || {
        guest.errors().matches("waits for another one").count()
            + guest.errors().matches("another one comes").count()
            == 3
    });
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!((gdb.rip(), gdb.counter()), (ENTRY, 0));
    assert_eq!(gdb.ask("D"), "OK");
    until("it counts", || {
        let mut gdb = guest.connect();
        gdb.is_served() && gdb.counter() > 0
    });
}

#[test]
fn who_comes_behind_one_that_has_gone_is_served() {
    let Some(guest) = Guest::start(&[]) else { return };
    for _ in 0..50 {
        let mut gdb = guest.connect();
        assert!(gdb.is_served());
        assert_eq!(gdb.ask("Qqemu.PhyMemMode:1"), "OK");
        assert_eq!(gdb.ask("Z1,100015,1"), "OK", "none of the last one's are left");
        assert_eq!(gdb.ask("Z1,100016,1"), "OK");
        assert_eq!(gdb.ask("Z1,100017,1"), "OK");
    }
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!(gdb.ask("qqemu.PhyMemMode"), "0");
}

#[test]
fn all_registers_are_written_as_they_were_read() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    let all = gdb.ask("g");
    assert_eq!(gdb.ask(&format!("G{all}")), "OK");
    assert_eq!(gdb.ask("g"), all);
    for _ in 0..3 {
        assert!(gdb.ask("vCont;s:p1.1").starts_with("T05"));
    }
    assert_eq!(gdb.rip(), ENTRY + 8, "three instructions on");
}

#[test]
fn what_is_set_of_a_guest_that_runs_is_refused() {
    let Some(guest) = Guest::start(&[]) else { return };
    let mut gdb = guest.connect();
    gdb.attach();
    assert_eq!(gdb.ask("Qqemu.PhyMemMode:1"), "OK");
    gdb.send("vCont;c");
    for packet in ["Z0,100015,1", "Z1,100015,1", "M200000,4:00000000", "m200000,4"] {
        gdb.send(packet);
    }
    gdb.0.write_all(&[3]).expect("it listens");
    loop {
        let answer = gdb.receive();
        match answer.starts_with("T02") {
            true => break,
            false => assert!(answer.starts_with('E'), "{answer}"),
        }
    }
    assert_eq!(gdb.ask("m100015,1"), "90");
}

/// It is told to end meanwhile.
#[test]
fn a_debugger_that_does_not_read_is_left() {
    let Some(mut guest) = Guest::start(&[]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    gdb.send("vCont;c");
    let all = "$qqemu.sstepbits#00".repeat(20_000);
    gdb.0.set_nonblocking(true).expect("a socket");
    let _ = gdb.0.write_all(all.as_bytes());
    until("it is left", || guest.errors().contains("does not listen"));
    let killed = Command::new("kill").arg(guest.strait.id().to_string()).status();
    assert!(killed.expect("a shell's tool").success());
    assert_eq!(guest.code(), Some(0), "{}", guest.errors());
}

/// It reads, but for minutes.
#[test]
fn a_debugger_that_reads_slowly_keeps_nobody_out() {
    let Some(mut guest) = Guest::start(&["-S"]) else {
        return;
    };
    let mut gdb = guest.connect();
    gdb.attach();
    // Bytes that do not repeat fill more of an answer.
    let bytes: String = (0..2000_u32).map(|at| format!("{:02x}", at * 7 % 251)).collect();
    assert_eq!(gdb.ask(&format!("M200000,7d0:{bytes}")), "OK");
    gdb.0
        .write_all("$m200000,7d0#86".repeat(280).as_bytes())
        .expect("room");
    let mut line = gdb.0.try_clone().expect("a copy");
    std::thread::spawn(move || {
        while line.read_exact(&mut [0; 2000]).is_ok() {
            sleep(Duration::from_secs(1));
        }
    });
    sleep(Duration::from_secs(1));
    let killed = Command::new("kill").arg(guest.strait.id().to_string()).status();
    assert!(killed.expect("a shell's tool").success());
    assert_eq!(guest.code(), Some(0), "{}", guest.errors());
}

/// What is said holds, whether the answer finds somebody or not.
#[test]
fn a_debugger_that_does_not_wait_for_an_answer_is_obeyed() {
    let Some(guest) = Guest::start(&["-S"]) else {
        return;
    };
    guest.connect().0.write_all(b"$D#44").expect("it listens");
    until("the guest counts", || {
        let mut gdb = guest.connect();
        let counts = gdb.is_served() && gdb.counter() > 0;
        let _ = gdb.0.write_all(b"$D#44");
        counts
    });
    let Some(mut guest) = Guest::start(&["-S"]) else {
        return;
    };
    // monitor quit
    guest
        .connect()
        .0
        .write_all(b"$qRcmd,71756974#d1")
        .expect("it listens");
    assert_eq!(guest.code(), Some(0), "{}", guest.errors());
}
