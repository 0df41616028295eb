package testnet

import (
	"bytes"
	"context"
	"fmt"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/client"
	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/tasks"
)

// submitWordCount uploads the example text and programs to a node and starts a
// word count there, two replicas a task. It returns the text as well.
func submitWordCount(ctx context.Context, c *client.Client, lines int64) (tasks.JobID, []byte, error) {
	text, err := examples.Text()
	if err != nil {
		return "", nil, err
	}
	upload := func(name string, b []byte) (tasks.CID, error) {
		root, err := c.AddFile(ctx, bytes.NewReader(b), int64(len(b)), api.AddOptions{Name: name, Audience: api.AudienceJob})
		if err != nil {
			return "", fmt.Errorf("add %s: %w", name, err)
		}
		return tasks.CID(root.CID), nil
	}
	program := func(name string) (tasks.CID, error) {
		b, err := examples.Program(name)
		if err != nil {
			return "", err
		}
		return upload(name+".wasm", b)
	}
	input, err := upload("tinyshakespeare.txt", text)
	if err != nil {
		return "", nil, err
	}
	count, err := program("wordcount")
	if err != nil {
		return "", nil, err
	}
	sum, err := program("wcsum")
	if err != nil {
		return "", nil, err
	}
	id, err := c.Submit(ctx, tasks.Spec{
		Name: "wordcount", Kind: tasks.KindWasm, Program: count,
		Inputs: []tasks.Input{{Source: input, Split: tasks.Split{By: tasks.SplitLines, Size: lines}}},
		Reduce: &tasks.Reduce{Program: sum},
		Verify: tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2},
	})
	if err != nil {
		return "", nil, fmt.Errorf("submit: %w", err)
	}
	return id, text, nil
}

// counts reads what a word count came to, and counts the text in this process.
func counts(ctx context.Context, c *client.Client, output tasks.CID, text []byte) (got, want map[string]int64, err error) {
	body, err := c.Cat(ctx, output, "", 0, -1)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch the result: %w", err)
	}
	defer body.Close()
	if got, err = examples.ReadCounts(body); err != nil {
		return nil, nil, fmt.Errorf("read the result: %w", err)
	}
	want, err = examples.CountWords(bytes.NewReader(text))
	return got, want, err
}

func cidOf(job api.Job) tasks.CID { return tasks.CID(job.Output) }
