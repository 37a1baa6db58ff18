// The API's page, in a browser, at a node that asks for a key: it shows the
// document, works under its Content-Security-Policy, reaches no other server,
// and tries an operation.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'

const { API, KEY, CHROMIUM } = process.env
let browser

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
})
after(() => browser?.close())

const open = async (path) => {
  const context = await browser.newContext({ httpCredentials: { username: 'key', password: KEY } })
  const page = await context.newPage()
  const faults = []
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()))
  page.on('pageerror', (error) => faults.push(String(error)))
  page.on('request', (request) => {
    if (!request.url().startsWith(API) && !request.url().startsWith('data:')) faults.push(`asked ${request.url()}`)
  })
  return { page, faults, response: await page.goto(API + path) }
}

test('nobody without a key sees it', async () => {
  const response = await fetch(API + '/api')
  assert.equal(response.status, 401)
  assert.match(response.headers.get('www-authenticate'), /Basic/) // so that a browser asks for it
})

for (const path of ['/api', '/api/v1/namespaces/default/api']) {
  test(`${path} shows the API and tries an operation`, async () => {
    const { page, faults, response } = await open(path)
    assert.equal(response.status(), 200)
    await page.locator('.info .title').waitFor()
    assert.ok((await page.locator('.opblock-tag').count()) > 10)

    await page.locator('.opblock-tag[data-tag="status"]').click()
    const operation = page.locator('#operations-status-getStatus')
    await operation.locator('.opblock-summary-control').click()
    await operation.locator('.try-out__btn').click()
    const [answer] = await Promise.all([
      page.waitForResponse((r) => r.url().endsWith('/status')),
      operation.locator('button.execute').click(),
    ])
    assert.equal(answer.status(), 200)
    await operation.locator('.live-responses-table .response-col_status', { hasText: '200' }).waitFor()
    assert.match(await operation.locator('.live-responses-table').innerText(), /"registered"/)
    assert.deepEqual(faults, [])
  })
}
