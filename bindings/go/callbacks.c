/* The callbacks that C sees: each passes its words on to Go, with the number of Go's function. */

#include "support.h"

#include "_cgo_export.h"

static void
forget (void *id)
{
  libnbdGoFree ((uintptr_t) id);
}

static int
chunk (void *id, const void *subbuf, size_t count, uint64_t offset, unsigned status, int *error)
{
  return libnbdGoChunk ((uintptr_t) id, (void *) subbuf, count, offset, status, error);
}

static int
completion (void *id, int *error)
{
  return libnbdGoCompletion ((uintptr_t) id, error);
}

static int
context (void *id, const char *name)
{
  return libnbdGoContext ((uintptr_t) id, (char *) name);
}

static int
debug (void *id, const char *function, const char *message)
{
  return libnbdGoDebug ((uintptr_t) id, (char *) function, (char *) message);
}

static int
extent (void *id, const char *context, uint64_t offset, uint32_t *entries, size_t nr_entries,
        int *error)
{
  return libnbdGoExtent ((uintptr_t) id, (char *) context, offset, entries, nr_entries, error);
}

static int
extent64 (void *id, const char *context, uint64_t offset, nbd_extent *entries, size_t nr_entries,
          int *error)
{
  return libnbdGoExtent64 ((uintptr_t) id, (char *) context, offset, entries, nr_entries, error);
}

static int
list (void *id, const char *name, const char *description)
{
  return libnbdGoList ((uintptr_t) id, (char *) name, (char *) description);
}

#define MAKER(kind)                                                     \
  nbd_##kind##_callback                                                 \
  libnbd_go_##kind##_callback (uintptr_t id)                            \
  {                                                                     \
    nbd_##kind##_callback made = { .callback = NULL };                  \
    if (id != 0) {                                                      \
      made.callback = kind;                                             \
      made.user_data = (void *) id;                                     \
      made.free = forget;                                               \
    }                                                                   \
    return made;                                                        \
  }

MAKER (chunk)
MAKER (completion)
MAKER (context)
MAKER (debug)
MAKER (extent)
MAKER (extent64)
MAKER (list)
