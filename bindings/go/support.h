/* What the methods call. A callback of Go is a number in C: its place in the registry; 0 is none. */

#ifndef LIBNBD_GO_SUPPORT_H
#define LIBNBD_GO_SUPPORT_H

#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

/* The error of this thread, copied: the thread's next call of the library may be of another
 * goroutine. */
struct libnbd_go_why {
  char *message; /* to be freed; NULL without memory */
  int code;      /* errno, or 0 */
};

struct libnbd_go_number {
  int64_t value;
  struct libnbd_go_why why;
};

struct libnbd_go_text {
  const char *value;
  struct libnbd_go_why why;
};

struct libnbd_go_created {
  struct nbd_handle *value;
  struct libnbd_go_why why;
};

static inline struct libnbd_go_why
libnbd_go_why (void)
{
  const char *message = nbd_get_error ();
  struct libnbd_go_why why = { .message = message ? strdup (message) : NULL };
  why.code = nbd_get_errno ();
  return why;
}

static inline struct libnbd_go_created
libnbd_go_create (void)
{
  struct libnbd_go_created got = { .value = nbd_create () };
  if (got.value == NULL)
    got.why = libnbd_go_why ();
  return got;
}

#define LIBNBD_GO_NUMBER(name, takes, gives)                            \
  static inline struct libnbd_go_number libnbd_go_##name takes          \
  {                                                                     \
    struct libnbd_go_number got = { .value = nbd_##name gives };        \
    if (got.value == -1)                                                \
      got.why = libnbd_go_why ();                                       \
    return got;                                                         \
  }

#define LIBNBD_GO_TEXT(name, takes, gives)                              \
  static inline struct libnbd_go_text libnbd_go_##name takes            \
  {                                                                     \
    struct libnbd_go_text got = { .value = nbd_##name gives };          \
    if (got.value == NULL)                                              \
      got.why = libnbd_go_why ();                                       \
    return got;                                                         \
  }

/* These are in callbacks.c. */
extern nbd_chunk_callback libnbd_go_chunk_callback (uintptr_t id);
extern nbd_completion_callback libnbd_go_completion_callback (uintptr_t id);
extern nbd_context_callback libnbd_go_context_callback (uintptr_t id);
extern nbd_debug_callback libnbd_go_debug_callback (uintptr_t id);
extern nbd_extent_callback libnbd_go_extent_callback (uintptr_t id);
extern nbd_extent64_callback libnbd_go_extent64_callback (uintptr_t id);
extern nbd_list_callback libnbd_go_list_callback (uintptr_t id);

#endif
