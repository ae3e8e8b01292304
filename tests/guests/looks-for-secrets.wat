;; A program that looks for what it has not written, everywhere, and then writes a secret over all that it has: memory, table, globals.
;;
;; What it does is the first letter that it is sent. It answers `clean`, or what is not as its image has it: `memory`, `table`, `global`.
;;   s   only looks
;;   r   looks, writes the secret and returns
;;   t e writes the secret and traps, or exits
;;   l w writes the secret and loops, or waits, for ever
;;   m b g   changes one byte of its memory, one entry of its table or one global, and looks: that it would find something
;; A large letter does the same with more memory and more of a table than is kept for the next guest.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))

  ;; Below 4096 is what it works with, but for the image at 2048.
  (memory (export "memory") 4)
  (data (i32.const 2048) "an imagean imagean imagean imagean imagean imagean imagean image")
  (data (i32.const 131072) "an imagean imagean imagean imagean imagean imagean imagean image")
  (data $answers "Content-Type: text/plain\nContent-Length: 6\n\nclean\n" "Content-Type: text/plain\nContent-Length: 6\n\nmemory" "Content-Type: text/plain\nContent-Length: 6\n\ntable\n" "Content-Type: text/plain\nContent-Length: 6\n\nglobal")

  (type $number (func (result i32)))
  (func $ours (result i32) (i32.const 1))
  (func $secret (result i32) (i32.const 2))
  (table $table 64 funcref)
  (elem (table $table) (i32.const 0) func $ours $ours $ours $ours $ours $ours $ours $ours)
  (elem declare func $secret)

  (global $a (mut i32) (i32.const 7))
  (global $b (mut i64) (i64.const 77))
  (global $c (mut f64) (f64.const 777))
  (global $d (mut v128) (v128.const i64x2 7777 77777))
  (global $e (mut funcref) (ref.null func))

  ;; 1 if there is anything but zeroes; both are multiples of 64.
  (func $is-written (param $at i32) (param $end i32) (result i32)
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (if (v128.any_true (v128.or
              (v128.or (v128.load (local.get $at)) (v128.load offset=16 (local.get $at)))
              (v128.or (v128.load offset=32 (local.get $at)) (v128.load offset=48 (local.get $at)))))
          (then (return (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 64)))
        (br $next))))
    (i32.const 0))

  (func $is-other-image (param $at i32) (result i32) (local $end i32)
    (local.set $end (i32.add (local.get $at) (i32.const 64)))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0x6567616d69206e61)) (then (return (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (i32.const 0))

  (func $end (result i32) (i32.shl (memory.size) (i32.const 16)))

  ;; The number of the answer.
  (func $look (result i32) (local $n i32)
    (if (i32.or
          (i32.or (call $is-other-image (i32.const 2048)) (call $is-other-image (i32.const 131072)))
          (i32.or (call $is-written (i32.const 4096) (i32.const 131072)) (call $is-written (i32.const 131136) (call $end))))
      (then (return (i32.const 1))))
    (loop $next
      (if (i32.lt_u (local.get $n) (i32.const 8))
        (then
          (if (i32.ne (call_indirect $table (type $number) (local.get $n)) (i32.const 1)) (then (return (i32.const 2)))))
        (else
          (if (i32.eqz (ref.is_null (table.get $table (local.get $n)))) (then (return (i32.const 2))))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (table.size $table))))
    (if (i32.ne (global.get $a) (i32.const 7)) (then (return (i32.const 3))))
    (if (i64.ne (global.get $b) (i64.const 77)) (then (return (i32.const 3))))
    (if (f64.ne (global.get $c) (f64.const 777)) (then (return (i32.const 3))))
    (if (v128.any_true (v128.xor (global.get $d) (v128.const i64x2 7777 77777))) (then (return (i32.const 3))))
    (if (i32.eqz (ref.is_null (global.get $e))) (then (return (i32.const 3))))
    (i32.const 0))

  (func $write-secret
    (memory.fill (i32.const 0) (i32.const 0x5e) (call $end))
    (table.fill $table (i32.const 0) (ref.func $secret) (table.size $table))
    (global.set $a (i32.const 0x5e5e5e5e))
    (global.set $b (i64.const 0x5e5e5e5e5e5e5e5e))
    (global.set $c (f64.const 0x1.5e5e5e5e5e5ep+100))
    (global.set $d (v128.const i64x2 0x5e5e5e5e5e5e5e5e 0x5e5e5e5e5e5e5e5e))
    (global.set $e (ref.func $secret)))

  (func $must (param i32) (if (local.get 0) (then unreachable)))

  (func $answer (param $number i32)
    (memory.init $answers (i32.const 1024) (i32.mul (local.get $number) (i32.const 50)) (i32.const 50))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 50))
    (call $must (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func $wait
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 128))
    (i32.store (i32.const 32) (i32.const 1))
    (i64.store (i32.const 40) (i64.const 3600000000000))
    (call $must (call $poll (i32.const 16) (i32.const 64) (i32.const 1) (i32.const 96))))

  (func (export "_start") (local $letter i32) (local $pages i32) (local $entries i32) (local $found i32)
    (i32.store (i32.const 0) (i32.const 32))
    (i32.store (i32.const 4) (i32.const 1))
    (call $must (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $letter (i32.load8_u (i32.const 32)))

    (if (i32.ne (memory.size) (i32.const 4)) (then (call $answer (i32.const 1)) (return)))
    (if (i32.ne (table.size $table) (i32.const 64)) (then (call $answer (i32.const 2)) (return)))
    (local.set $pages (i32.const 4))
    (local.set $entries (i32.const 1000))
    (if (i32.eqz (i32.and (local.get $letter) (i32.const 0x20))) (then
      (local.set $pages (i32.const 300))
      (local.set $entries (i32.const 40000))
      (local.set $letter (i32.or (local.get $letter) (i32.const 0x20)))))
    (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then unreachable))
    (if (i32.eq (table.grow $table (ref.null func) (local.get $entries)) (i32.const -1)) (then unreachable))

    (if (i32.eq (local.get $letter) (i32.const 0x6d)) (then (i32.store8 (i32.sub (call $end) (i32.const 1)) (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x62)) (then
      (table.set $table (i32.sub (table.size $table) (i32.const 1)) (ref.func $secret))))
    (if (i32.eq (local.get $letter) (i32.const 0x67)) (then (global.set $e (ref.func $secret))))

    (local.set $found (call $look))
    (if (i32.or (i32.or (i32.eq (local.get $letter) (i32.const 0x72)) (i32.eq (local.get $letter) (i32.const 0x74)))
        (i32.or (i32.eq (local.get $letter) (i32.const 0x65))
        (i32.or (i32.eq (local.get $letter) (i32.const 0x6c)) (i32.eq (local.get $letter) (i32.const 0x77)))))
      (then (call $write-secret)))
    (if (i32.eq (local.get $letter) (i32.const 0x74)) (then unreachable))
    (if (i32.eq (local.get $letter) (i32.const 0x65)) (then (call $exit (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6c)) (then (loop $for-ever (br $for-ever))))
    (if (i32.eq (local.get $letter) (i32.const 0x77)) (then (call $wait)))
    (call $answer (local.get $found))))
