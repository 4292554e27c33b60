/* A disk in memory, served until standard input ends. */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <blkit.h>

#define SIZE 1048576

struct ram {
  pthread_mutex_t lock;
  char bytes[SIZE];
};

static int
ram_pread (void *opaque, void *buf, size_t count, uint64_t offset)
{
  struct ram *ram = opaque;

  pthread_mutex_lock (&ram->lock);
  memcpy (buf, ram->bytes + offset, count);
  pthread_mutex_unlock (&ram->lock);
  /* The last block is bad. */
  return offset + count > SIZE - 512 ? -ENODATA : 0;
}

static int
ram_pwrite (void *opaque, const void *buf, size_t count, uint64_t offset)
{
  struct ram *ram = opaque;

  pthread_mutex_lock (&ram->lock);
  memcpy (ram->bytes + offset, buf, count);
  pthread_mutex_unlock (&ram->lock);
  return 0;
}

static int
ram_flush (void *opaque)
{
  (void) opaque;
  return 0;
}

static void
ram_free (void *opaque)
{
  printf ("freed\n");
  free (opaque);
}

int
main (int argc, char *argv[])
{
  struct blkit_device device = {
    .struct_size = sizeof device,
    .size = SIZE,
    .pread = ram_pread,
    .pwrite = ram_pwrite,
    .flush = ram_flush,
    .free = ram_free,
  };
  struct blkit_serve_options options = { .struct_size = sizeof options, .queues = 2 };
  struct blkit_server *server;
  struct ram *ram;
  char line[64];

  if (argc != 2 || (ram = calloc (1, sizeof *ram)) == NULL)
    return 2;
  pthread_mutex_init (&ram->lock, NULL);
  setvbuf (stdout, NULL, _IOLBF, 0);
  device.opaque = ram;
  if (blkit_serve_vhost_user (argv[1], &device, &options, &server) < 0) {
    printf ("cannot serve: %s\n", blkit_get_error_msg ());
    return 1;
  }
  printf ("serving\n");
  while (fgets (line, sizeof line, stdin) != NULL)
    ;
  printf ("%d attached\n", blkit_server_connections (server));
  if (blkit_server_close (server, 5000) < 0)
    printf ("not closed: %s\n", blkit_get_error_msg ());
  return 0;
}
