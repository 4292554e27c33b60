//! Writing replies to options (spec: Fixed newstyle negotiation, Option reply types).

use super::export::{BlockSizes, ExportInfo, Refused};
use super::options::{OpenRequest, Purpose};
use super::told;
use crate::proto;
use crate::wire::clip;

pub(super) const fn option_of(purpose: Purpose) -> u32 {
    match purpose {
        Purpose::Info => proto::OPT_INFO,
        Purpose::Go => proto::OPT_GO,
        Purpose::ExportName => proto::OPT_EXPORT_NAME,
    }
}

/// The successful answer to `OPT_INFO` and `OPT_GO`.
pub(super) fn describe(out: &mut Vec<u8>, request: &OpenRequest, info: &ExportInfo, flags: u16) {
    let option = option_of(request.purpose);
    let mut fact = |kind: u16, data: &[&[u8]]| {
        let kind = kind.to_be_bytes();
        let parts: Vec<&[u8]> = std::iter::once(&kind[..])
            .chain(data.iter().copied())
            .collect();
        reply(out, option, proto::REP_INFO, &parts);
    };
    fact(
        proto::INFO_EXPORT,
        &[&info.size.to_be_bytes(), &flags.to_be_bytes()],
    );
    if request.wants.name {
        fact(proto::INFO_NAME, &[clip(&info.name).as_bytes()]);
    }
    if request.wants.description && !info.description.is_empty() {
        fact(
            proto::INFO_DESCRIPTION,
            &[clip(&info.description).as_bytes()],
        );
    }
    if let Some(sizes) = info.block_sizes.filter(|_| request.wants.block_size) {
        block_size_info(out, option, sizes);
    }
    reply(out, option, proto::REP_ACK, &[]);
}

pub(super) fn block_size_info(out: &mut Vec<u8>, option: u32, sizes: BlockSizes) {
    let kind = proto::INFO_BLOCK_SIZE.to_be_bytes();
    let [minimum, preferred, maximum] =
        [sizes.minimum(), sizes.preferred(), sizes.maximum()].map(u32::to_be_bytes);
    reply(
        out,
        option,
        proto::REP_INFO,
        &[&kind, &minimum, &preferred, &maximum],
    );
}

pub(super) fn refuse(out: &mut Vec<u8>, option: u32, refused: &Refused) {
    let code = refused.code | proto::REP_FLAG_ERROR;
    told::refused(option, refused);
    reply(out, option, code, &[clip(&refused.text).as_bytes()]);
}

pub(super) fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    if kind == proto::REP_ACK || kind & proto::REP_FLAG_ERROR != 0 {
        told::reply(option, kind);
    }
    let length: usize = data.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&proto::REP_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(length as u32).to_be_bytes());
    for part in data {
        out.extend_from_slice(part);
    }
}
