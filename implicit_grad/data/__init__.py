"""Data sets that are files: found, verified, and fetched only when asked."""

from implicit_grad.data.downsampling import Downsampling as Downsampling
from implicit_grad.data.fetching import OFFICIAL_ARCHIVES as OFFICIAL_ARCHIVES
from implicit_grad.data.fetching import Archive as Archive
from implicit_grad.data.fetching import fetch_omniglot as fetch_omniglot
from implicit_grad.data.loading import load_omniglot as load_omniglot
from implicit_grad.data.packed import PackedImages as PackedImages
from implicit_grad.data.packing import pack_omniglot as pack_omniglot
