//! What the hot paths cost on this machine, in time: `cargo bench -p strait-paths`.

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for path in strait_paths::ALL {
        let mut pass = (path.make)();
        criterion.bench_function(path.name, |bencher| bencher.iter(&mut pass));
    }
    criterion.final_summary();
}
