//! The parameters of `partitioning`: three of them apply to the files that follow.

use std::path::PathBuf;

use config::{Arg, Choice, Config, ConfigError, ErrorKind, Kind, Param, Schema, Value, Values};

pub use crate::partition_table::guid::Guid;

/// Files as the partitions of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitioningConfig {
    /// The files, and how each becomes a partition.
    pub files: Vec<PartitionFile>,
    /// Which table; if it is not given, whichever fits.
    pub partition_type: Option<PartitionType>,
}

/// One file, and how it becomes a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFile {
    /// The file.
    pub path: PathBuf,
    /// What its first byte's offset on the disk is a multiple of.
    pub alignment: Alignment,
    /// Its system byte in an MBR.
    pub mbr_id: MbrId,
    /// Its type in a GPT.
    pub type_guid: TypeGuid,
}

/// The kind of partition table.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionType {
    /// A master boot record: up to about 2 TB.
    Mbr,
    /// A GUID partition table.
    Gpt,
}

/// Bytes that a partition's start is a multiple of: a power of two from 512 to 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment(pub u64);

/// The system byte of a partition in an MBR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MbrId(pub u8);

/// The type of a partition in a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeGuid(pub Guid);

impl Value for Alignment {
    const TYPE: &'static str = "SIZE";
    const KIND: Kind = Kind::Size;

    fn parse(text: &str) -> Result<Alignment, String> {
        let bytes = config::grammar::size(text)?;
        match (512..=1 << 20).contains(&bytes) && bytes.is_power_of_two() {
            true => Ok(Alignment(bytes)),
            false => Err("an alignment is a power of two from 512 to 1M".into()),
        }
    }
}

impl Value for MbrId {
    const TYPE: &'static str = "BYTE";

    fn parse(text: &str) -> Result<MbrId, String> {
        match text {
            "default" => Ok(MbrId(0x83)),
            _ => u8::parse(text).map(MbrId),
        }
    }
}

impl Value for TypeGuid {
    const TYPE: &'static str = "GUID";

    fn parse(text: &str) -> Result<TypeGuid, String> {
        match text {
            "default" => Ok(TypeGuid(Guid::LINUX)),
            _ => Guid::parse(text).map(TypeGuid),
        }
    }
}

static SCHEMA: Schema = Schema {
    name: "partitioning",
    doc: "Files or block devices as the partitions of one disk.\n\n\
          Clients may write to the partitions; the partition table and what lies between the \
          partitions cannot be changed. The files must keep their sizes while they are served.",
    params: const {
        &[
            Param::of::<Vec<PathBuf>>("file", "The file of the next partition.")
                .magic()
                .required(),
            Param::of::<Option<PartitionType>>(
                "partition-type",
                "The kind of partition table.\n\nIf it is not given: MBR for up to 4 files that \
                 it has room for, else GPT.",
            ),
            Param::of::<Vec<Alignment>>(
                "alignment",
                "What the start of every following partition is a multiple of.",
            )
            .default("1M"),
            Param::of::<Vec<MbrId>>(
                "mbr-id",
                "The MBR type byte of every following partition, or 'default' (0x83, Linux).",
            )
            .default("default"),
            Param::of::<Vec<TypeGuid>>(
                "type-guid",
                "The GPT type of every following partition, or 'default' (Linux file system).",
            )
            .default("default"),
        ]
    },
    rest: None,
};

impl Config for PartitioningConfig {
    fn schema() -> &'static Schema {
        &SCHEMA
    }

    fn from_args(args: &[Arg]) -> Result<Self, ConfigError> {
        // As of any node: unknown keys, bad values, what is missing, what is given twice.
        let values = Values::sort(&SCHEMA, args)?;
        values.field::<Vec<PathBuf>>(0)?;
        let partition_type = values.field(1)?;
        values.field::<Vec<Alignment>>(2)?;
        values.field::<Vec<MbrId>>(3)?;
        values.field::<Vec<TypeGuid>>(4)?;
        // And once more in their order.
        let mut next = PartitionFile {
            path: PathBuf::new(),
            alignment: Alignment(1 << 20),
            mbr_id: MbrId(0x83),
            type_guid: TypeGuid(Guid::LINUX),
        };
        let mut files = Vec::new();
        for arg in args {
            let (place, text) = match arg {
                Arg::KeyValue(key, value) => (SCHEMA.position(key), value),
                Arg::Bare(value) => (Some(0), value),
            };
            match place {
                Some(0) => {
                    next.path = read(text, 0)?;
                    files.push(next.clone());
                }
                Some(2) => next.alignment = read(text, 2)?,
                Some(3) => next.mbr_id = read(text, 3)?,
                Some(4) => next.type_guid = read(text, 4)?,
                _ => {}
            }
        }
        Ok(PartitioningConfig {
            files,
            partition_type,
        })
    }
}

fn read<T: Value>(text: &str, place: usize) -> Result<T, ConfigError> {
    let param = &SCHEMA.params[place];
    T::parse(text).map_err(|why| {
        let kind = ErrorKind::Bad {
            key: param.name,
            value: text.to_owned(),
            why,
            expected: param.kind,
        };
        ConfigError::new(SCHEMA.name, kind)
    })
}
