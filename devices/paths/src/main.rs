//! The hot paths for who counts instructions: without words it names them, `NAME PASSES` makes one ready and goes
//! through it so often. The difference of two counts with different numbers of passes is free of all else.

use std::env;
use std::process::ExitCode;

use strait_paths::ALL;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [name, passes] = words.as_slice() else {
        ALL.iter().for_each(|path| println!("{}", path.name));
        return ExitCode::SUCCESS;
    };
    let path = ALL.iter().find(|path| path.name == name.as_str());
    let (Some(path), Ok(passes)) = (path, passes.parse::<u32>()) else {
        eprintln!("strait-paths: {name} {passes}: is no path with a number of passes");
        return ExitCode::FAILURE;
    };
    let mut pass = (path.make)();
    (0..passes).for_each(|_| pass());
    ExitCode::SUCCESS
}
