/* Many commands at once: completion callbacks, cookies, poll, notify, the order of the callbacks,
 * and what happens to them when a command fails or the handle is closed. */

#include "check.h"

#include <poll.h>

#define BLOCKS 64
#define BLOCK 4096

static char buffers[BLOCKS][BLOCK];
static int completed, freed;

static int
on_completion (void *user_data, int *error)
{
  if (*error != 0)
    printf ("command %td: error %d\n", (char (*)[BLOCK]) user_data - buffers, *error);
  completed++;
  return 1;
}

static void
on_free (void *user_data)
{
  (void) user_data;
  freed++;
}

static nbd_completion_callback
completion (size_t i)
{
  return (nbd_completion_callback) {
    .callback = on_completion, .user_data = buffers[i], .free = on_free
  };
}

/* One turn of a program's own loop. */
static void
turn (struct nbd_handle *h)
{
  unsigned direction = nbd_aio_get_direction (h);
  struct pollfd fd = { .fd = nbd_aio_get_fd (h) };

  if (direction & LIBNBD_AIO_DIRECTION_READ)
    fd.events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    fd.events |= POLLOUT;
  if (poll (&fd, 1, -1) != 1)
    exit (EXIT_FAILURE);
  direction = nbd_aio_get_direction (h);
  if ((direction & LIBNBD_AIO_DIRECTION_READ) && (fd.revents & (POLLIN | POLLHUP)))
    MUST (nbd_aio_notify_read (h));
  else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (fd.revents & POLLOUT))
    MUST (nbd_aio_notify_write (h));
}

static void
many (struct nbd_handle *h)
{
  size_t i, j, wrong = 0;
  int64_t cookie, last = 0;

  for (i = 0; i < BLOCKS; ++i) {
    memset (buffers[i], (int) i + 1, BLOCK);
    cookie = MUST (nbd_aio_pwrite (h, buffers[i], BLOCK, i * BLOCK, completion (i), 0));
    if (cookie <= last)
      printf ("cookie %" PRIi64 " after %" PRIi64 "\n", cookie, last);
    last = cookie;
  }
  while (completed < BLOCKS)
    turn (h);
  printf ("written: completed %d freed %d in flight %d\n", completed, freed,
          nbd_aio_in_flight (h));

  completed = freed = 0;
  memset (buffers, 0, sizeof buffers);
  for (i = 0; i < BLOCKS; ++i)
    MUST (nbd_aio_pread (h, buffers[i], BLOCK, i * BLOCK, completion (i), 0));
  while (completed < BLOCKS)
    MUST (nbd_poll (h, -1));
  for (i = 0; i < BLOCKS; ++i)
    for (j = 0; j < BLOCK; ++j)
      wrong += buffers[i][j] != (char) (i + 1);
  printf ("read: completed %d freed %d wrong %zu\n", completed, freed, wrong);
}

/* Callbacks that tell when they are called. */
static int
say_chunk (void *user_data, const void *subbuf, size_t count, uint64_t offset, unsigned status,
           int *error)
{
  (void) subbuf;
  printf ("%s: count %zu offset %" PRIu64 " status %u error %d\n", (char *) user_data, count,
          offset, status, *error);
  return 0;
}

static int
say_completion (void *user_data, int *error)
{
  printf ("%s: error %d\n", (char *) user_data, *error);
  return 0;
}

static int
fail_completion (void *user_data, int *error)
{
  (void) user_data;
  *error = EXDEV;
  return -1;
}

static void
say_free (void *user_data)
{
  printf ("%s: free\n", (char *) user_data);
}

#define CHUNK ((nbd_chunk_callback) { say_chunk, "chunk", say_free })
#define COMPLETION ((nbd_completion_callback) { say_completion, "completion", say_free })

static void
order (struct nbd_handle *h)
{
  static char buf[BLOCK];
  int64_t cookie = MUST (nbd_aio_pread_structured (h, buf, BLOCK, 0, CHUNK, COMPLETION, 0));
  int done;

  while (nbd_aio_peek_command_completed (h) == 0)
    MUST (nbd_poll (h, -1));
  printf ("peeked: %d\n", nbd_aio_peek_command_completed (h) == cookie);
  printf ("in flight %d\n", nbd_aio_in_flight (h));
  SHOW (nbd_aio_command_completed (h, cookie));
  SHOW (nbd_aio_command_completed (h, cookie));
  SHOW (nbd_aio_command_completed (h, 0));
  SHOW (nbd_aio_peek_command_completed (h));

  /* Refused at once: freed, and never completed. */
  SHOW (nbd_aio_pread_structured (h, buf, BLOCK, UINT64_C (1) << 62, CHUNK, COMPLETION, 0));
  SHOW (nbd_aio_pread (h, buf, BLOCK, 0, COMPLETION, LIBNBD_CMD_FLAG_FUA));

  /* Without a function to call, free is called all the same. */
  cookie = MUST (nbd_aio_flush (h, (nbd_completion_callback) { NULL, "flush", say_free }, 0));
  printf ("flushed: %d\n", wait_for (h, cookie));

  /* The callback makes the command fail. */
  cookie = MUST (nbd_aio_flush (h, (nbd_completion_callback) { .callback = fail_completion }, 0));
  done = wait_for (h, cookie);
  printf ("failed: %d [%s; %d]\n", done, nbd_get_error (), nbd_get_errno ());
}

int
main (int argc, char *argv[])
{
  static char pending[BLOCK];
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  MUST (nbd_aio_connect_unix (h, argv[1]));
  while (nbd_aio_is_connecting (h))
    MUST (nbd_poll (h, -1));
  printf ("ready %d\n", nbd_aio_is_ready (h));
  many (h);
  order (h);
  /* What is still in flight is completed with an error when the handle is closed. */
  MUST (nbd_aio_pread_structured (h, pending, BLOCK, 0, CHUNK, COMPLETION, 0));
  nbd_close (h);
  printf ("closed\n");
  return 0;
}
