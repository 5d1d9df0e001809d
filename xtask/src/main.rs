mod setup; mod shell; mod wasm_std;
fn main() -> anyhow::Result<()> { setup::all()?; setup::build_worker() }
