# What a seller asks for on a channel, judged.

from libc.stdint cimport uint64_t

from .channel cimport ChannelTable
from .purchase cimport Sale
from .status cimport Status

cdef Status judge_sale(ChannelTable table, const Sale *sale, uint64_t now, uint64_t time) except *
