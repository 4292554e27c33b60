/* Sockets of the program's own: handed over connected, or as an address to connect to. */

#include "check.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/un.h>
#include <unistd.h>

static void
address (struct sockaddr_un *addr, const char *path)
{
  memset (addr, 0, sizeof *addr);
  addr->sun_family = AF_UNIX;
  strncpy (addr->sun_path, path, sizeof addr->sun_path - 1);
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  struct sockaddr_un addr;
  int fd, other;

  if (argc != 2)
    return 2;
  address (&addr, argv[1]);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd == -1 || connect (fd, (struct sockaddr *) &addr, sizeof addr) == -1)
    return 2;
  MUST (nbd_connect_socket (h, fd));
  SHOW (nbd_get_size (h));
  SHOW (nbd_aio_get_fd (h) == fd);
  SHOW (nbd_get_uri (h) == NULL);
  /* What is not taken stays open. */
  other = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  SHOW (nbd_connect_socket (h, other));
  printf ("still open: %d\n", fcntl (other, F_GETFD) != -1);
  close (other);
  nbd_close (h);
  printf ("closed with the handle: %d\n", fcntl (fd, F_GETFD) == -1 && errno == EBADF);

  h = create ();
  MUST (nbd_aio_connect (h, (struct sockaddr *) &addr, sizeof addr));
  while (nbd_aio_is_connecting (h))
    MUST (nbd_poll (h, -1));
  SHOW (nbd_aio_is_ready (h));
  SHOW (nbd_get_size (h));
  MUST (nbd_aio_disconnect (h, 0));
  while (!nbd_aio_is_closed (h) && !nbd_aio_is_dead (h))
    MUST (nbd_poll (h, -1));
  SHOW (nbd_aio_is_closed (h));
  nbd_close (h);

  /* A path may end with the address. */
  h = create ();
  MUST (nbd_aio_connect (h, (struct sockaddr *) &addr,
                         offsetof (struct sockaddr_un, sun_path) + strlen (argv[1])));
  while (nbd_aio_is_connecting (h))
    MUST (nbd_poll (h, -1));
  SHOW (nbd_aio_is_ready (h));
  nbd_close (h);

  h = create ();
  address (&addr, "/nowhere/at/all");
  SHOW (nbd_aio_connect (h, (struct sockaddr *) &addr, sizeof addr) == -1 ||
        nbd_poll (h, 1000) == -1 || nbd_aio_is_dead (h));
  nbd_close (h);

  h = create ();
  SHOW (nbd_connect_socket (h, 12345));
  nbd_close (h);
  return 0;
}
