//! An ELF file of nothing but symbols, from what a running kernel tells of itself: gdb gets names for a guest whose
//! distribution has no debug information at hand.

/// Below this there are per-CPU offsets and absolute numbers, which are no addresses (Documentation/arch/x86/x86_64/mm.rst).
const KERNEL_START: u64 = 0xffff_8000_0000_0000;

/// Sizes of the file's parts (ELF-64 Object File Format §2 to §5).
const HEADER: usize = 64;
const SECTION: usize = 64;
const SYMBOL: usize = 24;

/// Names of the sections, behind an empty one.
const SECTION_NAMES: &[u8] = b"\0.text\0.symtab\0.strtab\0.shstrtab\0";

/// Why there is no file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolsError {
    /// The kernel hides addresses from who is not root (`kptr_restrict`).
    #[error("all addresses are zero; read /proc/kallsyms in the guest as root")]
    Hidden,
    /// A kernel or a module, as its build left it or as a package of debug information has it.
    #[error("this is an ELF file, which has its symbols with it; give it to gdb as it is")]
    Elf,
    /// A kernel of 32 bits, or a copy that is not whole.
    #[error("none of its addresses is a 64-bit kernel's, which begin at {KERNEL_START:#x}")]
    Low,
    /// No line is one of kallsyms.
    #[error("no line has an address, a letter and a name; a copy of the guest's /proc/kallsyms is wanted")]
    None,
}

/// A function or a variable.
struct Symbol<'a> {
    address: u64,
    is_global: bool,
    is_function: bool,
    name: &'a str,
}

/// The file for the text of a /proc/kallsyms, modules included.
///
/// # Errors
/// When it has no symbols.
pub fn elf(kallsyms: &str) -> Result<Vec<u8>, SymbolsError> {
    if kallsyms.starts_with("\x7fELF") {
        return Err(SymbolsError::Elf);
    }
    let all: Vec<Symbol<'_>> = kallsyms.lines().filter_map(parse).collect();
    let mut symbols: Vec<&Symbol<'_>> = all
        .iter()
        .filter(|symbol| symbol.address >= KERNEL_START)
        .collect();
    if symbols.is_empty() {
        return Err(match all.iter().map(|symbol| symbol.address).max() {
            None => SymbolsError::None,
            Some(0) => SymbolsError::Hidden,
            Some(_) => SymbolsError::Low,
        });
    }
    // Local ones come first in the table, and its header says how many.
    symbols.sort_by_key(|symbol| symbol.is_global);
    let locals = symbols.iter().filter(|symbol| !symbol.is_global).count() + 1;
    let (mut table, mut names) = (vec![0; SYMBOL], vec![0]);
    for symbol in &symbols {
        let kind = if symbol.is_function { 2 } else { 1 };
        table.extend((names.len() as u32).to_le_bytes());
        table.extend([u8::from(symbol.is_global) << 4 | kind, 0]);
        table.extend(1_u16.to_le_bytes()); // in .text
        table.extend(symbol.address.to_le_bytes());
        table.extend(0_u64.to_le_bytes());
        names.extend(symbol.name.as_bytes());
        names.push(0);
    }
    let addresses = symbols.iter().map(|symbol| symbol.address);
    let first = addresses.clone().min().unwrap_or(KERNEL_START);
    let len = addresses.max().unwrap_or(first) - first + 1;
    Ok(file(first, len, &table, locals as u32, &names))
}

/// `ffffffff81000000 T _stext`, and behind a tab the module.
fn parse(line: &str) -> Option<Symbol<'_>> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let letter = words.next().filter(|word| word.len() == 1)?.chars().next()?;
    Some(Symbol {
        address,
        is_global: letter.is_ascii_uppercase(),
        is_function: matches!(letter.to_ascii_lowercase(), 't' | 'w'),
        name: words.next()?,
    })
}

/// Header, symbols, names, and the sections that tell where they are. `.text` has no bytes here: gdb reads the guest's.
fn file(first: u64, len: u64, table: &[u8], locals: u32, names: &[u8]) -> Vec<u8> {
    let at_names = HEADER + table.len();
    let at_section_names = at_names + names.len();
    let at_sections = (at_section_names + SECTION_NAMES.len()).next_multiple_of(8);
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes()); // ET_EXEC, EM_X86_64
    }
    file.extend(1_u32.to_le_bytes());
    for word in [first, 0, at_sections as u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER as u16, 56, 0, SECTION as u16, 5, 4] {
        file.extend(half.to_le_bytes());
    }
    file.extend(table);
    file.extend(names);
    file.extend(SECTION_NAMES);
    file.resize(at_sections, 0);
    let sections = [
        Section::default(),
        // SHT_NOBITS, allocated and executable.
        Section {
            name: 1,
            kind: 8,
            flags: 6,
            address: first,
            offset: HEADER as u64,
            len,
            ..Section::default()
        },
        // SHT_SYMTAB, with the names in section 3.
        Section {
            name: 7,
            kind: 2,
            offset: HEADER as u64,
            len: table.len() as u64,
            link: 3,
            info: locals,
            entry: SYMBOL as u64,
            ..Section::default()
        },
        // SHT_STRTAB.
        Section {
            name: 15,
            kind: 3,
            offset: at_names as u64,
            len: names.len() as u64,
            ..Section::default()
        },
        Section {
            name: 23,
            kind: 3,
            offset: at_section_names as u64,
            len: SECTION_NAMES.len() as u64,
            ..Section::default()
        },
    ];
    sections.iter().for_each(|section| section.write(&mut file));
    file
}

/// A section header.
#[derive(Default)]
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    len: u64,
    link: u32,
    info: u32,
    entry: u64,
}

impl Section {
    fn write(&self, file: &mut Vec<u8>) {
        for word in [self.name, self.kind] {
            file.extend(word.to_le_bytes());
        }
        for word in [self.flags, self.address, self.offset, self.len] {
            file.extend(word.to_le_bytes());
        }
        for word in [self.link, self.info] {
            file.extend(word.to_le_bytes());
        }
        for word in [1, self.entry] {
            file.extend(word.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "0000000000000000 A fixed_percpu_data\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000100 t helper\n\
        ffffffff82000000 D jiffies\n\
        ffffffffc0123000 t igb_probe\t[igb]\n";

    #[test]
    fn the_file_has_every_symbol_but_those_that_are_no_addresses() {
        let file = elf(KALLSYMS).expect("symbols");
        assert_eq!(&file[..4], b"\x7fELF");
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().expect("2 bytes"));
        let sections = word(40) as usize;
        assert_eq!(half(60), 5);
        assert_eq!(file.len(), sections + 5 * SECTION);
        let symtab = sections + 2 * SECTION;
        let (at, len) = (word(symtab + 24) as usize, word(symtab + 32) as usize);
        assert_eq!(len, 5 * SYMBOL, "the first is empty");
        let names = word(sections + 3 * SECTION + 24) as usize;
        let name = |symbol: usize| {
            let start = u32::from_le_bytes(file[at + symbol * SYMBOL..][..4].try_into().expect("4 bytes"));
            let bytes = &file[names + start as usize..];
            let end = bytes.iter().position(|byte| *byte == 0).expect("an end");
            (
                String::from_utf8_lossy(&bytes[..end]).into_owned(),
                word(at + symbol * SYMBOL + 8),
            )
        };
        assert_eq!(name(1), ("helper".to_owned(), 0xffff_ffff_8100_0100));
        assert_eq!(name(2), ("igb_probe".to_owned(), 0xffff_ffff_c012_3000));
        assert_eq!(name(4).0, "jiffies");
        let info = u32::from_le_bytes(file[symtab + 44..][..4].try_into().expect("4 bytes"));
        assert_eq!(info, 3, "two local ones and the empty one");
    }

    #[test]
    fn what_a_user_without_rights_gets_is_told() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 t helper\n";
        assert_eq!(elf(hidden), Err(SymbolsError::Hidden));
        assert_eq!(elf("a page of text\n"), Err(SymbolsError::None));
        assert_eq!(elf("00000000 A one\nc1000000 T _text\n"), Err(SymbolsError::Low));
        let text = String::from_utf8_lossy(b"\x7fELF\x02\xff").into_owned();
        assert_eq!(elf(&text), Err(SymbolsError::Elf));
    }
}
