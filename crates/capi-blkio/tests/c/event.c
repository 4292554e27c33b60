/* The completion descriptor, signals, and deadlines. */

#include "check.h"

#include <poll.h>
#include <sys/time.h>

static void
on_alarm (int number)
{
  (void) number;
}

static int
is_readable (int fd, int milliseconds)
{
  struct pollfd one = { .fd = fd, .events = POLLIN };

  return poll (&one, 1, milliseconds);
}

int
main (int argc, char *argv[])
{
  struct blkio_completion completion;
  struct blkio_mem_region region;
  struct itimerval soon = { .it_value = { 0, 50000 } };
  struct timespec timeout;
  sigset_t blocked, none;
  struct blkioq *q, *p;
  struct blkio *b;
  uint64_t events;
  int fd, result, tries;
  bool polls;

  if (argc != 3)
    return 2;
  b = connected (argv[1], argv[2]);
  MUST (blkio_get_bool (b, "supports-poll-queues", &polls));
  if (polls)
    MUST (blkio_set_int (b, "num-poll-queues", 1));
  MUST (blkio_start (b));
  region = region_of (b, 65536);
  q = blkio_get_queue (b, 0);
  fd = blkioq_get_completion_fd (q);
  SHOW (fd >= 0);
  SHOW (fd == blkioq_get_completion_fd (q));
  SHOW ((fcntl (fd, F_GETFL) & O_NONBLOCK) != 0);
  SHOW ((fcntl (fd, F_GETFD) & FD_CLOEXEC) != 0);

  blkioq_set_completion_fd_enabled (q, true);
  (void) !read (fd, &events, sizeof events);
  blkioq_read (q, 0, region.addr, 4096, (void *) 1, 0);
  result = blkioq_do_io (q, &completion, 0, 1, NULL);
  for (tries = 0; result == 0 && tries < 100; ++tries) {
    if (is_readable (fd, 10000) != 1)
      break;
    if (read (fd, &events, sizeof events) != 8)
      printf ("no event to read\n");
    result = blkioq_do_io (q, &completion, 0, 1, NULL);
  }
  SHOW (result);
  SHOW (completion.ret);
  SHOW (completion.error_msg == NULL);
  blkioq_set_completion_fd_enabled (q, false);

  /* Signals. */
  sigemptyset (&none);
  sigemptyset (&blocked);
  sigaddset (&blocked, SIGALRM);
  sigprocmask (SIG_BLOCK, &blocked, NULL);
  sigaction (SIGALRM, &(struct sigaction) { .sa_handler = on_alarm }, NULL);
  setitimer (ITIMER_REAL, &soon, NULL);
  SHOW (blkioq_do_io_interruptible (q, &completion, 0, 1, NULL, &none));
  SHOW (blkioq_do_io_interruptible (q, &completion, 1, 1, NULL, &none));
  is_readable (-1, 100);
  blkioq_flush (q, (void *) 2, 0);
  result = blkioq_do_io_interruptible (q, &completion, 1, 1, NULL, &none);
  /* The signal was there before: the call ends, one way or the other. */
  SHOW (result < 0 || result == 1);
  if (result != 1)
    MUST (blkioq_do_io (q, &completion, 1, 1, NULL));
  blkioq_flush (q, (void *) 3, 0);
  SHOW (blkioq_do_io_interruptible (q, &completion, 1, 1, NULL, NULL));

  /* A deadline that has passed leaves nothing out. */
  timeout = (struct timespec) { 0, 0 };
  blkioq_write_zeroes (q, 0, 4096, (void *) 4, 0);
  result = blkioq_do_io (q, &completion, 1, 1, &timeout);
  SHOW (result == 1 || result == -ETIME);
  if (result != 1)
    MUST (blkioq_do_io (q, &completion, 1, 1, NULL));
  SHOW ((int) (intptr_t) completion.user_data);

  if (polls) {
    p = blkio_get_poll_queue (b, 0);
    SHOW (blkioq_get_completion_fd (p) == -1);
    blkioq_set_completion_fd_enabled (p, true);
    blkioq_read (p, 0, region.addr, 4096, NULL, 0);
    SHOW (blkioq_do_io_interruptible (p, &completion, 1, 1, NULL, &none));
    SHOW (blkioq_do_io_interruptible (p, NULL, 0, 0, NULL, NULL));
    SHOW (blkioq_do_io (p, &completion, 1, 1, NULL));
    blkioq_flush (p, NULL, 0);
    complete (p, "flush");
    blkioq_write_zeroes (p, 0, 4096, NULL, 0);
    complete (p, "write zeroes");
  }
  blkio_destroy (&b);
  return 0;
}
