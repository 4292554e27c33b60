package main

import "libguestfs.org/libnbd"

// Names of the package's published documentation: that they are there is all.
var _ = []interface{}{
	libnbd.AioBlockStatus64Optargs{}, libnbd.AioBlockStatusFilterOptargs{},
	libnbd.AioBlockStatusOptargs{}, libnbd.AioBuffer{}, libnbd.AioCacheOptargs{},
	libnbd.AioDisconnectOptargs{}, libnbd.AioFlushOptargs{}, libnbd.AioOptExtendedHeadersOptargs{},
	libnbd.AioOptGoOptargs{}, libnbd.AioOptInfoOptargs{}, libnbd.AioOptListMetaContextOptargs{},
	libnbd.AioOptListMetaContextQueriesOptargs{}, libnbd.AioOptListOptargs{},
	libnbd.AioOptSetMetaContextOptargs{}, libnbd.AioOptSetMetaContextQueriesOptargs{},
	libnbd.AioOptStarttlsOptargs{}, libnbd.AioOptStructuredReplyOptargs{}, libnbd.AioPreadOptargs{},
	libnbd.AioPreadStructuredOptargs{}, libnbd.AioPwriteOptargs{}, libnbd.AioTrimOptargs{},
	libnbd.AioZeroOptargs{}, libnbd.AllowTransport(0), libnbd.BlockStatus64Optargs{},
	libnbd.BlockStatusFilterOptargs{}, libnbd.BlockStatusOptargs{}, libnbd.CacheOptargs{},
	libnbd.ChunkCallback(nil), libnbd.CmdFlag(0), libnbd.CompletionCallback(nil),
	libnbd.ContextCallback(nil), libnbd.DebugCallback(nil), libnbd.Extent64Callback(nil),
	libnbd.ExtentCallback(nil), libnbd.FlushOptargs{}, libnbd.HandshakeFlag(0), libnbd.Libnbd{},
}

// Methods, as it has them.
var (
	_ func(*libnbd.Libnbd, string) error = (*libnbd.Libnbd).AddMetaContext
	_ func(*libnbd.Libnbd, uint64, uint64, libnbd.ExtentCallback,
		*libnbd.AioBlockStatusOptargs) (uint64, error) = (*libnbd.Libnbd).AioBlockStatus
	_ func(*libnbd.Libnbd, uint64, uint64, libnbd.Extent64Callback,
		*libnbd.AioBlockStatus64Optargs) (uint64, error) = (*libnbd.Libnbd).AioBlockStatus64
	_ func(*libnbd.Libnbd, uint64, uint64, []string, libnbd.Extent64Callback,
		*libnbd.AioBlockStatusFilterOptargs) (uint64, error) = (*libnbd.Libnbd).AioBlockStatusFilter
	_ func(*libnbd.Libnbd, uint64, uint64, *libnbd.AioCacheOptargs) (uint64,
		error) = (*libnbd.Libnbd).AioCache
)
