/* One handle, two threads: one waits for the socket and an eventfd, the other submits and rings. */

#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define COMMANDS 2000
#define BLOCK 512

static struct nbd_handle *h;
static int bell;
static atomic_int completed, failed;
static char out[COMMANDS][BLOCK], in[COMMANDS][BLOCK];

static int
on_completion (void *user_data, int *error)
{
  (void) user_data;
  if (*error != 0)
    atomic_fetch_add (&failed, 1);
  atomic_fetch_add (&completed, 1);
  return 1;
}

/* As a program's own loop does it. */
static void
turn (void)
{
  unsigned direction = nbd_aio_get_direction (h);
  struct pollfd fds[2] = { { .fd = nbd_aio_get_fd (h) }, { .fd = bell, .events = POLLIN } };

  if (direction & LIBNBD_AIO_DIRECTION_READ)
    fds[0].events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    fds[0].events |= POLLOUT;
  if (poll (fds, 2, -1) == -1)
    exit (EXIT_FAILURE);
  /* The other thread may have changed what it waits for. */
  direction = nbd_aio_get_direction (h);
  if ((direction & LIBNBD_AIO_DIRECTION_READ) && (fds[0].revents & (POLLIN | POLLHUP)))
    MUST (nbd_aio_notify_read (h));
  else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (fds[0].revents & POLLOUT))
    MUST (nbd_aio_notify_write (h));
}

static void *
waiter (void *unused)
{
  uint64_t rung;

  while (atomic_load (&completed) < 2 * COMMANDS) {
    turn ();
    if (read (bell, &rung, sizeof rung) == -1 && errno != EAGAIN)
      exit (EXIT_FAILURE);
  }
  return unused;
}

static void
ring (void)
{
  uint64_t one = 1;

  if (write (bell, &one, sizeof one) != sizeof one)
    exit (EXIT_FAILURE);
}

static void
submit (int write, int i)
{
  nbd_completion_callback done = { .callback = on_completion };

  if (write)
    MUST (nbd_aio_pwrite (h, out[i], BLOCK, (uint64_t) i * BLOCK, done, 0));
  else
    MUST (nbd_aio_pread (h, in[i], BLOCK, (uint64_t) i * BLOCK, done, 0));
  ring ();
}

int
main (int argc, char *argv[])
{
  pthread_t thread;
  int i;

  if (argc != 2 || (bell = eventfd (0, EFD_NONBLOCK | EFD_CLOEXEC)) == -1)
    return 2;
  h = create ();
  MUST (nbd_connect_unix (h, argv[1]));
  for (i = 0; i < COMMANDS; ++i)
    memset (out[i], i % 251 + 1, BLOCK);
  if (pthread_create (&thread, NULL, waiter, NULL) != 0)
    return 2;
  for (i = 0; i < COMMANDS; ++i)
    submit (1, i);
  while (atomic_load (&completed) < COMMANDS)
    usleep (1000);
  for (i = 0; i < COMMANDS; ++i)
    submit (0, i);
  while (atomic_load (&completed) < 2 * COMMANDS)
    usleep (1000);
  ring ();
  pthread_join (thread, NULL);
  printf ("completed %d failed %d equal %d in flight %d\n", completed, failed,
          memcmp (out, in, sizeof in) == 0, nbd_aio_in_flight (h));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}
