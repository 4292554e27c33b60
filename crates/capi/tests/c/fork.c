/* Handles made before and after a fork; errors are each thread's own. */

#include "check.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void *
other_thread (void *h)
{
  printf ("other thread: %s %d\n", nbd_get_error () ? "text" : "none", nbd_get_errno ());
  SHOW (nbd_set_tls (h, 9));
  return NULL;
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  pthread_t thread;
  char buf[512];
  int status;
  pid_t pid;

  if (argc != 2)
    return 2;
  SHOW (nbd_get_size (h));
  pthread_create (&thread, NULL, other_thread, h);
  pthread_join (thread, NULL);
  printf ("this thread: %d\n", nbd_get_errno ());

  MUST (nbd_connect_unix (h, argv[1]));
  fflush (stdout);
  if ((pid = fork ()) == -1)
    return 2;
  if (pid == 0) {
    /* The child goes on with the connection of its parent, and makes one of its own. */
    struct nbd_handle *own = create ();

    memset (buf, 'c', sizeof buf);
    MUST (nbd_pwrite (h, buf, sizeof buf, 0, 0));
    MUST (nbd_connect_unix (own, argv[1]));
    MUST (nbd_pread (own, buf, sizeof buf, 0, 0));
    printf ("child reads %c\n", buf[0]);
    nbd_close (own);
    fflush (stdout);
    _exit (0);
  }
  if (waitpid (pid, &status, 0) != pid)
    return 2;
  printf ("child: %d\n", status);
  MUST (nbd_pread (h, buf, sizeof buf, 0, 0));
  printf ("parent reads %c\n", buf[0]);
  nbd_close (h);
  return 0;
}
