//! The prefixes and networks of the file.

use std::{fmt, str::FromStr};

use cli::{
    Failure,
    config::{Document, Spanned},
};
use nat64::{destinations::Network4, network6::Network6};
use pref64::Pref64;

use super::{file::File, pool::PoolRange};

/// The networks of the file, each with its place.
pub(super) struct Networks {
    pub(super) prefixes: Vec<Spanned<Pref64>>,
    pub(super) clients: Vec<Spanned<Network6>>,
    pub(super) quota_exempt: Vec<Spanned<Network6>>,
    pub(super) pool: Vec<Spanned<PoolRange>>,
    pub(super) allow_destinations: Vec<Spanned<Network4>>,
}

impl Networks {
    /// Reads them.
    pub(super) fn read(document: &Document, file: &File) -> Result<Self, Failure> {
        fn all<T>(
            document: &Document,
            texts: &[Spanned<String>],
        ) -> Result<Vec<Spanned<T>>, Failure>
        where
            T: FromStr,
            T::Err: fmt::Display,
        {
            texts.iter().map(|text| document.value(text)).collect()
        }
        Ok(Self {
            prefixes: all(document, &file.prefixes)?,
            clients: all(document, &file.clients)?,
            quota_exempt: all(document, &file.quota.exempt)?,
            pool: file
                .pool
                .iter()
                .map(|item| PoolRange::read(document, item))
                .collect::<Result<_, _>>()?,
            allow_destinations: all(document, &file.allow_destinations)?,
        })
    }
}

pub(super) fn values<T: Clone>(list: &[Spanned<T>]) -> Vec<T> {
    list.iter().map(|it| it.get_ref().clone()).collect()
}
