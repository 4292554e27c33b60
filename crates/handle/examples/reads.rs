//! Reads of a disk, one after the other: `reads URI COUNT LENGTH`. Run it under strace(1) to count system calls.

use handle::Handle;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [uri, count, length] = &words[..] else {
        return Err("reads URI COUNT LENGTH".into());
    };
    let (count, length): (u64, usize) = (count.parse()?, length.parse()?);
    let handle = Handle::new()?;
    handle.connect_uri(uri)?;
    let mut buffer = vec![0; length];
    for n in 0..count {
        let most = handle.get_size()? as u64 - length as u64;
        buffer = handle.pread(buffer, n * length as u64 % most.max(1), 0)?;
    }
    handle.shutdown(0)?;
    Ok(())
}
